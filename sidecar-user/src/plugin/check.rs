//! `check`: whether the cluster can have Outrigger, or whether what is installed works, a line for each thing. Changes nothing; a pod is
//! tried without being kept.
//!
//! ```text
//!   gather.rs, ask.rs: facts ─▶ judge.rs: a report ─▶ text.rs, or JSON
//! ```

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::access::AccessArgs;
use super::error::{Error, unwritten};
use super::screen::{ScreenArgs, Syntax};
use report::{CheckReport, Outcome};
use text::LocaleArgs;

pub(super) mod ask;
pub(super) mod facts;
pub(super) mod gather;
mod judge;
pub(super) mod report;
mod text;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Whether the cluster can have Outrigger, before it is installed
    #[arg(long)]
    pre: bool,
    /// Look again until nothing fails, at most this long, e.g. 2m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    screen: ScreenArgs,
    #[command(flatten)]
    locale: LocaleArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    /// Only what is not fine
    Short,
    Json,
    Yaml,
}

/// Between two looks.
const AGAIN: Duration = Duration::from_secs(2);

impl CheckArgs {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        if self.access.endpoint().is_some() {
            return Err(Error::Usage {
                reason: "check looks at a cluster; of one host, or one pod, `outrigger check` says what is missing".into(),
            });
        }
        let report = self.report()?;
        let screen = self.screen.stdout();
        let syntax = match self.output {
            Output::Json => Some(Syntax::Json),
            Output::Yaml => Some(Syntax::Yaml),
            Output::Text | Output::Short => None,
        };
        match syntax {
            Some(syntax) => {
                let body = serde_json::to_value(&report).map_err(|error| unwritten(error.into()))?;
                screen.document(out, syntax, "CheckReport", &body)?;
            }
            None => {
                let style = self.locale.style(&screen);
                let text = text::render(&report, self.output == Output::Short, style);
                out.write_all(text.as_bytes()).map_err(unwritten)?;
            }
        }
        match report.succeeded {
            true => Ok(()),
            false => Err(Error::ChecksFailed {
                failed: count(&report, Outcome::Failed),
            }),
        }
    }

    fn report(&self) -> Result<CheckReport, Error> {
        let start = Instant::now();
        loop {
            // Each look begins anew: a kubeconfig, roots and tokens may be others by then.
            let session = self.access.anew()?;
            let report = gather::report(&session, self.access.namespace(&session), self.pre);
            let is_over = self.wait.is_none_or(|most| start.elapsed() + AGAIN > most);
            if report.succeeded || is_over {
                return Ok(report);
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "nothing tells when a cluster is fine, so it is looked at again"
            )]
            thread::sleep(AGAIN);
        }
    }
}

fn count(report: &CheckReport, outcome: Outcome) -> usize {
    let all = report.categories.iter().flat_map(|category| &category.checks);
    all.filter(|check| check.result == outcome).count()
}
