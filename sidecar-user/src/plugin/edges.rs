//! `edges`: who talks to whom over what, secured or why not, from the flows that a proxy or a node's agent remembers: a table,
//! a document, a graph for Graphviz, or a picture.

use std::io::Write;
use std::time::SystemTime;

use clap::{Args, ValueEnum};

use super::access::{AccessArgs, SelectorArgs};
use super::client;
use super::columns::{Column, Columns, WHOLE, column};
use super::error::{Error, unwritten};
use super::filters::{CourseArgs, FilterArgs};
use super::flows::not_flows;
use super::merge;
use super::paint::{Cell, Tint};
use super::screen::{Screen, ScreenArgs, Syntax};
use super::words::{known, part, rate, short_time, size};
use crate::observe::FlowList;
use graph::Edge;
use window::Window;

pub(super) use graph::EdgeList;

mod captions;
mod dot;
pub(super) mod graph;
mod ink;
mod layers;
mod layout;
pub(super) mod naming;
mod order;
mod svg;
#[cfg(test)]
mod tests;
mod window;

#[derive(Debug, Args)]
pub(super) struct Edges {
    #[command(flatten)]
    of: SelectorArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    screen: ScreenArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Only flows that ended since then: how long ago, such as 10m, or a time; not of one proxy
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    course: CourseArgs,
    /// Without the line that names the columns
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
    /// Text for Graphviz
    Dot,
    /// A picture
    Svg,
}

/// So many of each kind are asked for; a proxy gives as many as it lets this caller have.
const LIMIT: usize = 10_000;

const COLUMNS: [Column; 12] = [
    column("SOURCE", 0, 14),
    column("DESTINATION", 0, 14),
    column("SERVICE", 6, 12),
    column("PORT", 1, WHOLE),
    column("SECURED", 0, 12),
    column("FAILED", 1, WHOLE),
    column("CONN/S", 2, WHOLE),
    column("RTT", 3, WHOLE),
    column("BYTES/S", 4, WHOLE),
    column("CONNECTIONS", 5, WHOLE),
    column("SENT", 7, WHOLE),
    column("RECV", 7, WHOLE),
];

impl Edges {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let sources = self.access.sources(&self.of)?;
        sources.tell();
        let answers = sources.get(&self.path())?;
        let list = merge::lists(&answers.bodies, &merge::FLOWS).and_then(serde_json::from_value);
        let list: FlowList = list.map_err(|e| not_flows(&sources, &e))?;
        if list.truncated {
            eprintln!("kubectl outrigger: only the newest flows are in this; older ones are left off");
        }
        let asked = self.since.as_deref();
        let asked = asked.and_then(|since| Window::since(since, SystemTime::now()));
        let mut edges = graph::of(&list, asked);
        edges.name_pods(&sources.outside);
        let screen = self.screen.stdout();
        let text = match self.output {
            Output::Json | Output::Yaml => {
                let syntax = match self.output {
                    Output::Yaml => Syntax::Yaml,
                    _ => Syntax::Json,
                };
                let body = serde_json::to_value(&edges).map_err(|error| unwritten(error.into()))?;
                screen.document(out, syntax, "EdgeList", &body)?;
                return answers.end();
            }
            Output::Dot => dot::text(&edges),
            Output::Svg => svg::picture(&edges),
            Output::Table => table(&edges, &screen, !self.no_headers),
            Output::Wide => {
                let width = None;
                table(&edges, &Screen { width, ..screen }, !self.no_headers)
            }
        };
        out.write_all(text.as_bytes()).map_err(unwritten)?;
        answers.end()
    }

    fn path(&self) -> String {
        let mut path = format!("/flows?limit={LIMIT}");
        if let Some(since) = &self.since {
            path.push_str(&format!("&since={}", client::escaped(since)));
        }
        let filters = self.filter.query() + &self.course.query();
        if !filters.is_empty() {
            path.push_str(&format!("&{}", filters.trim_end_matches('&')));
        }
        path
    }
}

fn table(edges: &EdgeList, screen: &Screen, headers: bool) -> String {
    let columns = Columns::new(COLUMNS.into(), screen.width, headers);
    let mut columns = columns.coloured(screen.is_coloured);
    for edge in &edges.edges {
        columns.push(row(edge));
    }
    columns.text()
}

fn row(edge: &Edge) -> Vec<Cell> {
    let unknown = || "-".to_owned();
    let tint = match (edge.is_down(), edge.secured) {
        (true, _) => Tint::Failed,
        (_, true) => Tint::Secured,
        _ => Tint::Plaintext,
    };
    let failed = part(edge.failed, edge.connections);
    vec![
        edge.source.name.clone().into(),
        edge.destination.name.clone().into(),
        known(edge.service.as_deref()).into(),
        edge.port.map_or_else(unknown, |port| port.to_string()).into(),
        Cell::tinted(edge.security(), tint),
        Cell::maybe(failed, (edge.failed > 0).then_some(Tint::Failed)),
        edge.connections_per_second.map_or_else(unknown, rate).into(),
        edge.rtt_median_seconds.map_or_else(unknown, short_time).into(),
        edge.bytes_per_second
            .map_or_else(unknown, |bytes| size(bytes as u64))
            .into(),
        edge.connections.to_string().into(),
        size(edge.bytes_sent).into(),
        size(edge.bytes_received).into(),
    ]
}
