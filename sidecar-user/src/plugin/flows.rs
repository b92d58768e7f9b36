//! `flows`: the connections of a proxy, or of all pods of a node; once or as they happen.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::access::{AccessArgs, SelectorArgs, Sources};
use super::client;
use super::columns::printable;
use super::error::{Error, unwritten};
use super::filters::{CourseArgs, FilterArgs};
use super::merge;
use super::screen::{Output, Screen, ScreenArgs, Syntax};
use super::table::{Shape, Table};
use crate::observe::{FlowList, FlowReport, WatchEvent};

#[derive(Debug, Args)]
pub(super) struct Flows {
    #[command(flatten)]
    of: SelectorArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    screen: ScreenArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Go on with each flow that opens or closes
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    course: CourseArgs,
    /// Only flows that are open (or still connecting), or that have closed
    #[arg(long, value_enum, value_name = "STATE")]
    state: Option<State>,
    /// The same as --state open
    #[arg(long, conflicts_with_all = ["closed", "state", "failed", "cause"])]
    open: bool,
    /// The same as --state closed
    #[arg(long, conflicts_with = "state")]
    closed: bool,
    /// Only the newest N open and N closed flows
    #[arg(long, visible_alias = "tail", value_name = "N")]
    limit: Option<usize>,
    /// Without the line that names the columns
    #[arg(long)]
    no_headers: bool,
    /// Only flows that ended since then: how long ago, such as 10m, or a time; not of one proxy
    #[arg(long, value_name = "TIME", conflicts_with = "watch")]
    since: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    Open,
    Closed,
}

impl Flows {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        self.run_on(&self.screen.stdout(), out)
    }

    fn run_on(&self, screen: &Screen, out: &mut impl Write) -> Result<(), Error> {
        let sources = self.access.sources(&self.of)?;
        sources.tell();
        match self.watch {
            true => self.watch(&sources, screen, out),
            false => self.list(&sources, screen, out),
        }
    }

    fn path(&self) -> String {
        let mut path = String::from("/flows?");
        if self.watch {
            path.push_str("watch=true&");
        }
        if self.open || self.state == Some(State::Open) {
            path.push_str("state=open&");
        }
        if self.closed || self.state == Some(State::Closed) {
            path.push_str("state=closed&");
        }
        path.push_str(&self.filter.query());
        path.push_str(&self.course.query());
        if let Some(since) = &self.since {
            path.push_str(&format!("since={}&", client::escaped(since)));
        }
        if let Some(limit) = self.limit {
            path.push_str(&format!("limit={limit}&"));
        }
        path.pop();
        path
    }

    fn list(&self, sources: &Sources, screen: &Screen, out: &mut impl Write) -> Result<(), Error> {
        let answers = sources.get(&self.path())?;
        // What this version does not know of is told too.
        let all = merge::lists(&answers.bodies, &merge::FLOWS).map_err(|e| not_flows(sources, &e))?;
        if let Some(syntax) = self.output.syntax() {
            screen.document(out, syntax, "FlowList", &all)?;
            return answers.end();
        }
        let list: FlowList = serde_json::from_value(all).map_err(|e| not_flows(sources, &e))?;
        let flows: Vec<&FlowReport> = list.open.iter().chain(&list.closed).collect();
        if flows.is_empty() {
            eprintln!("kubectl outrigger: no connections are remembered of these pods");
        }
        let text = match self.output {
            Output::Name => flows.iter().map(|flow| name(flow)).collect(),
            _ => self.table(screen, &flows).text(),
        };
        out.write_all(text.as_bytes()).map_err(unwritten)?;
        if list.truncated {
            eprintln!("kubectl outrigger: older flows are left off; see --limit");
        }
        answers.end()
    }

    fn watch(&self, sources: &Sources, screen: &Screen, out: &mut impl Write) -> Result<(), Error> {
        let lines = sources.watch(&self.path())?;
        let mut table = self.table(screen, &[]).expecting_more();
        out.write_all(table.text().as_bytes())
            .and_then(|()| out.flush())
            .map_err(unwritten)?;
        for line in lines {
            let line = line?;
            let event: WatchEvent = serde_json::from_str(&line).map_err(|e| not_flows(sources, &e))?;
            let text = match &event {
                _ if self.output.syntax().is_some() => {
                    let event: Value = serde_json::from_str(&line).map_err(|e| not_flows(sources, &e))?;
                    self.event(out, &event)?;
                    String::new()
                }
                WatchEvent::Opened { flow } | WatchEvent::Closed { flow } => match self.output {
                    Output::Name => name(flow),
                    _ => table.line(flow),
                },
                WatchEvent::Skipped { strangers } => {
                    eprintln!("kubectl outrigger: {strangers} events of strangers were left out");
                    String::new()
                }
                WatchEvent::Dropped { .. } => String::new(),
            };
            out.write_all(text.as_bytes())
                .and_then(|()| out.flush())
                .map_err(unwritten)?;
            if let WatchEvent::Dropped { reason } = event {
                return Err(Error::Ended {
                    target: sources.to_string(),
                    reason: printable(&reason),
                });
            }
        }
        Err(Error::Ended {
            target: sources.to_string(),
            reason: "the proxy stopped".into(),
        })
    }

    /// A line each, or a YAML document each, also on a terminal: events are read one by one.
    fn event(&self, out: &mut impl Write, event: &Value) -> Result<(), Error> {
        match self.output.syntax() {
            Some(syntax) => {
                if syntax == Syntax::Yaml {
                    out.write_all(b"---\n").map_err(unwritten)?;
                }
                Screen::default().document(out, syntax, "FlowEvent", event)
            }
            None => Ok(()),
        }
    }

    fn table(&self, screen: &Screen, flows: &[&FlowReport]) -> Table {
        let shape = Shape {
            // A wide terminal has room for more; what there is none for is left out again.
            wide: self.output == Output::Wide || screen.width.is_some(),
            full: self.output == Output::Wide,
            pods: false,
            headers: !self.no_headers && [Output::Table, Output::Wide].contains(&self.output),
            colours: screen.is_coloured,
            room: screen.width.filter(|_| self.output != Output::Wide),
        };
        Table::new(shape, flows)
    }
}

/// `flow/POD/ID`, with the pod as `namespace/name` where a node's agent tells of it.
fn name(flow: &FlowReport) -> String {
    let pod = flow.pod.as_deref().map(|pod| format!("{pod}/"));
    printable(&format!("flow/{}{}", pod.unwrap_or_default(), flow.id)) + "\n"
}

pub(super) fn not_flows(sources: &Sources, error: &serde_json::Error) -> Error {
    Error::NotFlows {
        target: sources.to_string(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::served::Endpoint;
    use super::super::{Cli, Verb};
    use super::*;

    const PIPE: Screen = Screen {
        width: None,
        is_terminal: false,
        is_coloured: false,
    };

    fn flows(args: &[&str]) -> Flows {
        let args = ["kubectl outrigger", "flows"].iter().chain(args);
        let Verb::Flows(flows) = Cli::try_parse_from(args).unwrap().verb else {
            panic!("flows")
        };
        flows
    }

    #[test]
    fn flags_become_the_query() {
        assert_eq!(flows(&[]).path(), "/flows");
        assert_eq!(
            flows(&["-w", "--open", "--limit", "5"]).path(),
            "/flows?watch=true&state=open&limit=5"
        );
        assert_eq!(
            flows(&["demo/web-0", "--failed", "--since", "10 m", "--unix", "/agent"]).path(),
            "/flows?failed=true&since=10%20m"
        );
        assert_eq!(
            flows(&[
                "--state", "closed", "--tail", "5", "--port", "80", "--cause", "denied"
            ])
            .path(),
            "/flows?state=closed&port=80&cause=denied&limit=5"
        );
        assert_eq!(flows(&["--open"]).path(), flows(&["--state", "open"]).path());
        assert!(Cli::try_parse_from(["x", "flows", "--open", "--closed"]).is_err());
        assert!(Cli::try_parse_from(["x", "flows", "--open", "--state", "closed"]).is_err());
        assert!(Cli::try_parse_from(["x", "flows", "--address", "a:1", "--unix", "/b"]).is_err());
    }

    #[test]
    fn a_target_that_is_not_there_names_the_remedy() {
        let out = &mut Vec::new();
        let error = flows(&["--kubeconfig", "/nowhere/config"])
            .run_on(&PIPE, out)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nowhere/config cannot be used as a kubeconfig") && error.contains("--unix"),
            "{error}"
        );
        let error = flows(&["--unix", "/nowhere/admin.sock"])
            .run_on(&PIPE, out)
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nowhere/admin.sock does not answer"), "{error}");
        assert!(out.is_empty());
    }

    /// The plugin against the real endpoint: what one writes, the other reads.
    #[test]
    fn flows_of_a_real_endpoint_are_printed() {
        let endpoint = Endpoint::with_a_flow("plugin");
        let unix = endpoint.path();
        let mut out = Vec::new();
        flows(&["--unix", unix]).run_on(&PIPE, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("10.99.0.2:40000") && text.lines().count() == 2,
            "{text}"
        );
        let mut json = Vec::new();
        flows(&["--unix", unix, "-o", "json"])
            .run_on(&PIPE, &mut json)
            .unwrap();
        let list: FlowList = serde_json::from_slice(&json).unwrap();
        assert_eq!((list.open.len(), list.closed.len()), (1, 0));
        let mut names = Vec::new();
        flows(&["--unix", unix, "-o", "name"])
            .run_on(&PIPE, &mut names)
            .unwrap();
        assert_eq!(String::from_utf8(names).unwrap(), "flow/1\n");
        let mut none = Vec::new();
        flows(&["--unix", unix, "--port", "81", "--no-headers"])
            .run_on(&PIPE, &mut none)
            .unwrap();
        assert!(none.is_empty(), "{none:?}");
        let path = endpoint.end();
        assert!(!path.exists());
    }
}
