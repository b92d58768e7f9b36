//! `flows`: the connections of a proxy, or of all pods of a node; once or as they happen.

use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::access::{AccessArgs, SelectorArgs, Sources};
use super::client;
use super::columns::printable;
use super::error::{Error, unwritten};
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
    /// Only open flows
    #[arg(long, conflicts_with = "closed")]
    open: bool,
    /// Only closed flows
    #[arg(long)]
    closed: bool,
    /// Only the newest N open and N closed flows
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[arg(long)]
    no_headers: bool,
    /// Only flows that ended since then: how long ago, such as 10m, or a time; not of one proxy
    #[arg(long, value_name = "TIME", conflicts_with = "watch")]
    since: Option<String>,
    /// Only flows that did not end in order
    #[arg(long, conflicts_with = "open")]
    failed: bool,
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
        if self.open {
            path.push_str("state=open&");
        }
        if self.closed {
            path.push_str("state=closed&");
        }
        if self.failed {
            path.push_str("failed=true&");
        }
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
        let table = self.table(screen, &flows);
        out.write_all(table.text().as_bytes()).map_err(unwritten)?;
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
                WatchEvent::Opened { flow } | WatchEvent::Closed { flow } => table.line(flow),
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
            headers: !self.no_headers && self.output.syntax().is_none(),
            room: screen.width.filter(|_| self.output != Output::Wide),
        };
        Table::new(shape, flows)
    }
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

    use super::super::{Cli, Verb};
    use super::*;

    const PIPE: Screen = Screen {
        width: None,
        is_terminal: false,
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
        assert!(Cli::try_parse_from(["x", "flows", "--open", "--closed"]).is_err());
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
        use crate::observe::{Admin, AdminSocket, Listeners, Observer, serve_admin};
        let path = std::env::temp_dir().join(format!("outrigger-{}-plugin.sock", std::process::id()));
        let socket = AdminSocket::bind(&path).unwrap();
        let observer = Observer::new();
        let open = observer.shard(0).open(super::super::table::tests::flow());
        let admin = Admin::of_flows(&observer);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    served = serve_admin(Listeners { socket: Some(socket), ..Listeners::default() }, admin) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        let unix = path.to_str().unwrap();
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
        drop((open, stop));
        server.join().unwrap();
        assert!(!path.exists());
    }
}
