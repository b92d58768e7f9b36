//! `edges`: who talks to whom over what, secured or why not, from the flows that a proxy or a node's agent remembers: a table,
//! a document, a graph for Graphviz, or a picture.

use std::io::Write;

use clap::{Args, ValueEnum};

use super::access::{AccessArgs, SelectorArgs};
use super::client;
use super::columns::{Column, Columns, WHOLE, column};
use super::error::{Error, unwritten};
use super::flows::not_flows;
use super::merge;
use super::screen::{ScreenArgs, Syntax};
use super::words::{known, size};
use crate::observe::FlowList;
use graph::Edge;

pub(super) use graph::EdgeList;

mod captions;
mod dot;
mod graph;
mod ink;
mod layers;
mod layout;
mod naming;
mod order;
mod svg;
#[cfg(test)]
mod tests;

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
    /// Only of this service, `namespace/hostname` or its hostname
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
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

const COLUMNS: [Column; 9] = [
    column("SOURCE", 0, 14),
    column("DESTINATION", 0, 14),
    column("SERVICE", 4, 12),
    column("PORT", 1, WHOLE),
    column("SECURED", 0, 12),
    column("CONNECTIONS", 2, WHOLE),
    column("FAILED", 1, WHOLE),
    column("SENT", 3, WHOLE),
    column("RECV", 3, WHOLE),
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
        let mut edges = graph::of(&list);
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
            Output::Table => table(&edges, screen.width, !self.no_headers),
            Output::Wide => table(&edges, None, !self.no_headers),
        };
        out.write_all(text.as_bytes()).map_err(unwritten)?;
        answers.end()
    }

    fn path(&self) -> String {
        let mut path = format!("/flows?limit={LIMIT}");
        for (name, value) in [("since", &self.since), ("service", &self.service)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", client::escaped(value)));
            }
        }
        path
    }
}

fn table(edges: &EdgeList, room: Option<usize>, headers: bool) -> String {
    let mut columns = Columns::new(COLUMNS.into(), room, headers);
    for edge in &edges.edges {
        columns.push(row(edge));
    }
    columns.text()
}

fn row(edge: &Edge) -> Vec<String> {
    vec![
        edge.source.name.clone(),
        edge.destination.name.clone(),
        known(edge.service.as_deref()),
        edge.port.map_or_else(|| "-".into(), |port| port.to_string()),
        edge.security(),
        edge.connections.to_string(),
        edge.failed.to_string(),
        size(edge.bytes_sent),
        size(edge.bytes_received),
    ]
}
