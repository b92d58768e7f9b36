//! `version`: of this program, and of what is installed: control, agents, sidecars; and where they differ.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::access::AccessArgs;
use super::check::ask;
use super::check::facts::{Agent, Answer};
use super::check::gather;
use super::columns::printable;
use super::error::{Error, unwritten};
use super::screen::{ScreenArgs, Syntax};
use super::versions::{self, Counts};

#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// Of this program alone: asks nobody
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    screen: ScreenArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
    Yaml,
}

/// What `version -o json` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VersionReport {
    pub(super) client: String,
    pub(super) control: Option<String>,
    /// The oldest first.
    pub(super) agents: Vec<Counted>,
    pub(super) sidecars: Vec<Counted>,
    /// What does not agree, a sentence each.
    pub(super) skew: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counted {
    pub(super) version: String,
    pub(super) count: usize,
}

impl VersionArgs {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let own = env!("CARGO_PKG_VERSION");
        if self.client || self.access.endpoint().is_some() {
            return self.print(out, &report(own, None, &Counts::new(), &Counts::new()));
        }
        let session = self.access.session()?;
        let control = match gather::control(&session) {
            Ok(Some(control)) => control.version,
            Ok(None) => None,
            Err(unknown) => {
                eprintln!(
                    "kubectl outrigger: the version of control is not known: {}",
                    unknown.why
                );
                None
            }
        };
        let said = match ask::agents(&session, self.access.namespace(&session)) {
            Ok(said) => said,
            Err(unknown) => {
                self.print(out, &report(own, control, &Counts::new(), &Counts::new()))?;
                return Err(Error::Unanswerable { body: unknown.why });
            }
        };
        let sidecars = versions::count(said.pods.iter().filter_map(|pod| pod.version.as_deref()));
        self.print(
            out,
            &report(own, control, &Agent::versions(&said.agents), &sidecars),
        )?;
        end(&said.agents)
    }

    fn print(&self, out: &mut impl Write, report: &VersionReport) -> Result<(), Error> {
        let screen = self.screen.stdout();
        let syntax = match self.output {
            Format::Text => {
                let text = text(report, self.client);
                return out.write_all(text.as_bytes()).map_err(unwritten);
            }
            Format::Json => Syntax::Json,
            Format::Yaml => Syntax::Yaml,
        };
        let body = serde_json::to_value(report).map_err(|error| unwritten(error.into()))?;
        screen.document(out, syntax, "VersionReport", &body)
    }
}

/// Says whose version is not known, and why.
fn end(agents: &[Agent]) -> Result<(), Error> {
    let mut failed = 0;
    for agent in agents {
        match &agent.answer {
            Answer::Told(_) => {}
            Answer::Withheld(why) => {
                eprintln!("kubectl outrigger: the versions of agents are not known: {why}");
                return Ok(());
            }
            Answer::None(why) => {
                eprintln!("kubectl outrigger: {why}");
                failed += 1;
            }
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(Error::Partly {
            failed,
            all: agents.len(),
        }),
    }
}

fn report(own: &str, control: Option<String>, agents: &Counts, sidecars: &Counts) -> VersionReport {
    let mut skew = Vec::new();
    let newest = agents.keys().next_back();
    for (what, counts) in [("agents", agents), ("sidecars", sidecars)] {
        if counts.len() > 1 {
            skew.push(format!("{what} differ: {}", versions::text(counts)));
        }
    }
    if let (Some(control), Some(agents)) = (&control, newest)
        && **control != **agents
    {
        skew.push(format!(
            "control is {control}, and agents are {agents}: an upgrade has not ended"
        ));
    }
    if let (Some(agents), Some((sidecars, _))) = (newest, sidecars.first_key_value())
        && sidecars != agents
    {
        skew.push(format!(
            "sidecars are {sidecars}, and agents {agents}: kubectl rollout restart gives pods those of the installation"
        ));
    }
    if let Some(agents) = newest
        && **agents != *own
    {
        skew.push(format!(
            "this program is {own}, and agents are {agents}: use the one of the installation"
        ));
    }
    let counted = |counts: &Counts| {
        let all = counts.iter().map(|(version, count)| Counted {
            version: version.to_string(),
            count: *count,
        });
        all.collect()
    };
    VersionReport {
        client: own.to_owned(),
        control,
        agents: counted(agents),
        sidecars: counted(sidecars),
        skew,
    }
}

fn text(report: &VersionReport, is_alone: bool) -> String {
    let counted = |all: &[Counted]| match all {
        [] => "unknown".to_owned(),
        all => {
            let each = all.iter().map(|one| format!("{} ({})", one.version, one.count));
            each.collect::<Vec<_>>().join(", ")
        }
    };
    let mut lines = vec![("client", report.client.clone())];
    if !is_alone {
        let sidecars = match report.sidecars.as_slice() {
            [] => "none".to_owned(),
            some => counted(some),
        };
        lines.extend([
            (
                "control",
                report.control.clone().unwrap_or_else(|| "unknown".into()),
            ),
            ("agents", counted(&report.agents)),
            ("sidecars", sidecars),
        ]);
    }
    let mut text: String = lines
        .iter()
        .map(|(what, version)| format!("{what:<10}{}\n", printable(version)))
        .collect();
    for skew in &report.skew {
        text.push_str(&format!("! {}\n", printable(skew)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(control: Option<&str>, agents: &[&str], sidecars: &[&str]) -> VersionReport {
        let count = |versions: &[&str]| versions::count(versions.iter().copied());
        report(
            "0.2.0",
            control.map(String::from),
            &count(agents),
            &count(sidecars),
        )
    }

    #[test]
    fn what_agrees_has_no_skew() {
        let same = of(Some("0.2.0"), &["0.2.0", "0.2.0"], &["0.2.0"]);
        assert_eq!(
            text(&same, false),
            "client    0.2.0\ncontrol   0.2.0\nagents    0.2.0 (2)\nsidecars  0.2.0 (1)\n"
        );
        assert_eq!(text(&of(None, &[], &[]), true), "client    0.2.0\n");
        assert_eq!(
            text(&of(None, &[], &[]), false),
            "client    0.2.0\ncontrol   unknown\nagents    unknown\nsidecars  none\n"
        );
    }

    #[test]
    fn each_difference_is_named() {
        let skew = |report: VersionReport| report.skew.join("\n");
        let older = skew(of(Some("0.2.0"), &["0.2.0"], &["0.1.0", "0.2.0"]));
        assert!(older.contains("sidecars differ: 0.1.0 (1), 0.2.0 (1)"), "{older}");
        assert!(older.contains("rollout restart"), "{older}");
        let upgrade = skew(of(Some("0.3.0"), &["0.2.0", "0.10.0"], &[]));
        assert!(
            upgrade.contains("agents differ: 0.2.0 (1), 0.10.0 (1)"),
            "{upgrade}"
        );
        assert!(
            upgrade.contains("control is 0.3.0, and agents are 0.10.0"),
            "{upgrade}"
        );
        assert!(
            upgrade.contains("this program is 0.2.0, and agents are 0.10.0"),
            "{upgrade}"
        );
    }
}
