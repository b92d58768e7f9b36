//! ROLE: the kubectl plugin. Asks a proxy's admin endpoint and prints what it says.
//!
//! Talks to one address or unix socket; it does not ask Kubernetes for anything yet. Data goes to stdout, messages
//! to stderr. Exit status: 0 done, 1 the proxy could not be asked or refused, 2 wrong usage.

use std::io::{self, BufRead, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::observe::{FlowList, WatchEvent};
use client::{ANSWER_TIMEOUT, Target};
use error::unwritten;
use table::Table;

mod client;
mod drain;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod table;
mod why;

pub use client::ask;
pub use drain::Drain;
pub use error::Error;
pub use why::Why;

#[derive(Debug, Parser)]
#[command(
    name = "kubectl outrigger",
    bin_name = "kubectl outrigger",
    version,
    about = "Look into Outrigger"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The connections of a proxy: open ones and the last closed ones
    Flows(Flows),
    /// What would happen to a connection, and why
    Why(Why),
}

#[derive(Debug, Args)]
struct Flows {
    /// Pods to ask; not possible yet, see --address
    #[arg(value_name = "POD")]
    pods: Vec<String>,
    /// Admin endpoint of the proxy, e.g. 127.0.0.1:15000
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["unix", "pods"])]
    address: Option<String>,
    /// Admin socket of the proxy, e.g. /run/outrigger/admin.sock
    #[arg(long, value_name = "PATH", conflicts_with = "pods")]
    unix: Option<PathBuf>,
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
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    Wide,
    Json,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let out = &mut io::stdout().lock();
    let done = match Cli::parse().verb {
        Verb::Flows(flows) => flows.run(out),
        Verb::Why(why) => why.run(out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough, as `head` does.
        Err(Error::Output { source }) if source.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kubectl outrigger: {error}");
            match error {
                Error::NoTarget | Error::Pod { .. } => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

impl Flows {
    fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let target = self.target()?;
        if self.watch {
            self.watch(&target, out)
        } else {
            self.list(&target, out)
        }
    }

    fn target(&self) -> Result<Target, Error> {
        match (&self.address, &self.unix, self.pods.first()) {
            (Some(address), ..) => Ok(Target::Tcp(address.clone())),
            (_, Some(path), _) => Ok(Target::Unix(path.clone())),
            (_, _, Some(pod)) => Err(Error::Pod { pod: pod.clone() }),
            _ => Err(Error::NoTarget),
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
        if let Some(limit) = self.limit {
            path.push_str(&format!("limit={limit}&"));
        }
        path.pop();
        path
    }

    fn list(&self, target: &Target, out: &mut impl Write) -> Result<(), Error> {
        let body = client::get(target, &self.path(), Some(ANSWER_TIMEOUT))?.whole()?;
        let list: FlowList = serde_json::from_str(&body).map_err(|e| not_flows(target, &e))?;
        if self.output == Output::Json {
            return out.write_all(body.as_bytes()).map_err(unwritten);
        }
        let table = self.table(list.open.iter().chain(&list.closed));
        out.write_all(table.text().as_bytes()).map_err(unwritten)?;
        if list.truncated {
            eprintln!("kubectl outrigger: older flows are left off; see --limit");
        }
        Ok(())
    }

    fn watch(&self, target: &Target, out: &mut impl Write) -> Result<(), Error> {
        let answer = client::get(target, &self.path(), None)?;
        let mut table = self.table([]).expecting_more();
        out.write_all(table.text().as_bytes())
            .and_then(|()| out.flush())
            .map_err(unwritten)?;
        for line in answer.into_body().lines() {
            let line = line.map_err(|source| Error::Unreachable {
                target: target.to_string(),
                source,
            })?;
            let event: WatchEvent = serde_json::from_str(&line).map_err(|e| not_flows(target, &e))?;
            let text = match &event {
                _ if self.output == Output::Json => line + "\n",
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
                return Err(ended(target, table::printable(&reason)));
            }
        }
        Err(ended(target, "the proxy stopped".into()))
    }

    fn table<'a>(&self, flows: impl IntoIterator<Item = &'a crate::observe::FlowReport>) -> Table {
        // JSON has no header line.
        let headers = !self.no_headers && self.output != Output::Json;
        Table::new(self.output == Output::Wide, headers, flows)
    }
}

fn not_flows(target: &Target, error: &serde_json::Error) -> Error {
    Error::NotFlows {
        target: target.to_string(),
        reason: error.to_string(),
    }
}

fn ended(target: &Target, reason: String) -> Error {
    Error::Ended {
        target: target.to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(Cli::try_parse_from(["x", "flows", "--open", "--closed"]).is_err());
        assert!(Cli::try_parse_from(["x", "flows", "--address", "a:1", "--unix", "/b"]).is_err());
    }

    #[test]
    fn a_missing_target_names_the_remedy() {
        let out = &mut Vec::new();
        assert!(
            flows(&[])
                .run(out)
                .unwrap_err()
                .to_string()
                .contains("--address HOST:PORT")
        );
        let error = flows(&["web-0"]).run(out).unwrap_err().to_string();
        assert!(error.contains("port-forward web-0 15000"), "{error}");
        let error = flows(&["--unix", "/nowhere/admin.sock"])
            .run(out)
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nowhere/admin.sock does not answer"), "{error}");
        assert!(out.is_empty());
    }

    /// The plugin against the real endpoint: what one writes, the other reads.
    #[test]
    fn flows_of_a_real_endpoint_are_printed() {
        use crate::observe::{Admin, AdminSocket, LogLevel, Observer, serve_admin};
        let path = std::env::temp_dir().join(format!("outrigger-{}-plugin.sock", std::process::id()));
        let socket = AdminSocket::bind(&path).unwrap();
        let observer = Observer::new();
        let open = observer.shard(0).open(table::tests::flow());
        let admin = Admin {
            observer: observer.clone(),
            config: Box::new(|_| serde_json::Value::Null),
            log_level: LogLevel {
                get: Box::new(String::new),
                set: Box::new(|_| Ok(())),
            },
            why: Box::new(|_| Err(String::new())),
            drain: Box::new(|| {}),
            phase: Box::new(|| "serving"),
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    served = serve_admin(None, Some(socket), admin) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        let unix = path.to_str().unwrap();
        let mut out = Vec::new();
        flows(&["--unix", unix]).run(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("10.99.0.2:40000") && text.lines().count() == 2,
            "{text}"
        );
        let mut json = Vec::new();
        flows(&["--unix", unix, "-o", "json"]).run(&mut json).unwrap();
        let list: FlowList = serde_json::from_slice(&json).unwrap();
        assert_eq!((list.open.len(), list.closed.len()), (1, 0));
        drop((open, stop));
        server.join().unwrap();
        assert!(!path.exists());
    }
}
