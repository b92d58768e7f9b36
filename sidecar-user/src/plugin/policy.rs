//! `policy check`: which policies hold for a pod, and whether somebody would be let in. Knows no rule itself; only shows what the proxy
//! says at `/policies`.

use std::io::Write;
use std::net::IpAddr;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::access::AccessArgs;
use super::client;
use super::columns::{Column, Columns, WHOLE, column, printable};
use super::error::{Error, unwritten};
use super::of_itself;
use super::screen::{Output, ScreenArgs};
use crate::observe::{PolicyReport, PolicySource, PolicyStanding, PolicyVerdict};

#[derive(Debug, Args)]
pub(super) struct Policy {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Which policies hold for a pod, and whether somebody would be let in
    Check(Check),
}

#[derive(Debug, Args)]
struct Check {
    /// The pod, of another namespace as NAMESPACE/POD; none at the endpoint of a proxy
    #[arg(value_name = "POD")]
    pod: Option<String>,
    /// Would this one be let in? NAMESPACE/ACCOUNT, a SPIFFE ID, or none: plaintext
    #[arg(long, value_name = "WHO", value_parser = somebody)]
    from: Option<PolicySource>,
    /// To which port of the application
    #[arg(long, value_name = "PORT", requires = "from")]
    port: Option<u16>,
    /// From which address
    #[arg(long, value_name = "ADDRESS", requires = "from")]
    from_address: Option<IpAddr>,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    screen: ScreenArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[arg(long)]
    no_headers: bool,
}

const COLUMNS: [Column; 6] = [
    column("POLICY", 0, 20),
    column("ACTION", 0, WHOLE),
    column("APPLIES", 1, WHOLE),
    column("SCOPE", 2, WHOLE),
    column("RULES", 3, WHOLE),
    column("BECAUSE", 0, 16),
];

fn somebody(text: &str) -> Result<PolicySource, String> {
    text.parse()
        .map_err(|()| "write NAMESPACE/ACCOUNT, a SPIFFE ID, or none for plaintext".to_owned())
}

impl Policy {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let Verb::Check(check) = &self.verb;
        check.run(out)
    }
}

impl Check {
    fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let source = of_itself::source(&self.access, self.pod.as_deref())?;
        let body = of_itself::ask(&source, &self.path())?;
        let unlike = |error: serde_json::Error| Error::Unlike {
            target: source.target.to_string(),
            what: "report of policies",
            reason: error.to_string(),
        };
        let report: PolicyReport = serde_json::from_str(&body).map_err(unlike)?;
        let screen = self.screen.stdout();
        let Some(syntax) = self.output.syntax() else {
            let room = screen.width.filter(|_| self.output == Output::Table);
            let text = render(&report, room, !self.no_headers);
            return out.write_all(text.as_bytes()).map_err(unwritten);
        };
        let report: Value = serde_json::from_str(&body).map_err(unlike)?;
        screen.document(out, syntax, "PolicyReport", &report)
    }

    fn path(&self) -> String {
        let mut pairs = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            pairs.extend(value.map(|value| format!("{name}={}", client::escaped(&value))));
        };
        add("from", self.from.as_ref().map(ToString::to_string));
        add("port", self.port.map(|port| port.to_string()));
        add("address", self.from_address.map(|ip| ip.to_string()));
        match pairs.is_empty() {
            true => "/policies".to_owned(),
            false => format!("/policies?{}", pairs.join("&")),
        }
    }
}

/// The verdict first, where there is one; then each policy in a row, and what else decides.
pub(super) fn render(report: &PolicyReport, room: Option<usize>, headers: bool) -> String {
    let mut text = String::new();
    if let Some(verdict) = &report.verdict {
        text.push_str(&line(&told(report, verdict)));
        text.push_str(&line(&format!("  {}", verdict.reason)));
        if let Some(dry_run) = &verdict.dry_run {
            text.push_str(&line(&format!("  if dry runs were obeyed: {dry_run}")));
        }
        text.push('\n');
    }
    if !report.policies.is_empty() {
        let mut columns = Columns::new(COLUMNS.into(), room, headers);
        for policy in &report.policies {
            columns.push(row(policy, report.verdict.is_some()));
        }
        text.push_str(&columns.text());
        text.push('\n');
    }
    text.push_str(&line(&format!(
        "{}, mode {}, as of change {} of its registry",
        report.pod.as_deref().unwrap_or(&report.workload),
        report.mode,
        report.registry.generation
    )));
    for note in &report.notes {
        text.push_str(&line(&format!("  {note}")));
    }
    text
}

fn line(text: &str) -> String {
    printable(text) + "\n"
}

fn told(report: &PolicyReport, verdict: &PolicyVerdict) -> String {
    let who = match &*verdict.from {
        "none" => "plaintext",
        id => id,
    };
    let from = verdict
        .address
        .iter()
        .map(|ip| format!(" from {ip}"))
        .collect::<String>();
    let port = verdict
        .port
        .iter()
        .map(|port| format!(", port {port}"))
        .collect::<String>();
    let to = report.pod.as_deref().unwrap_or(&report.workload);
    format!("{who}{from} to {to}{port}: {}", verdict.result)
}

fn row(policy: &PolicyStanding, is_asked: bool) -> Vec<String> {
    let action = match policy.dry_run {
        true => format!("{} (dry run)", policy.action),
        false => policy.action.to_string(),
    };
    vec![
        policy.name.clone(),
        action,
        match (policy.applies, is_asked) {
            (Some(rule), _) => format!("rules[{rule}]"),
            (None, true) => "no".to_owned(),
            (None, false) => "-".to_owned(),
        },
        policy.scope.to_string(),
        policy.rules.to_string(),
        policy.because.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::contract;
    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        policy: Policy,
    }

    fn path(args: &[&str]) -> Result<String, clap::Error> {
        let line = Line::try_parse_from(["policy", "check"].iter().chain(args))?;
        let Verb::Check(check) = line.policy.verb;
        Ok(check.path())
    }

    #[test]
    fn flags_become_the_question() {
        assert_eq!(path(&[]).unwrap(), "/policies");
        assert_eq!(
            path(&["demo/web-0", "--from", "demo/client", "--port", "80"]).unwrap(),
            "/policies?from=demo/client&port=80"
        );
        assert_eq!(
            path(&["--from", "none", "--from-address", "fd00::1"]).unwrap(),
            "/policies?from=none&address=fd00::1"
        );
        assert!(path(&["--port", "80"]).is_err(), "who?");
        let error = path(&["--from", "client"]).unwrap_err().to_string();
        assert!(error.contains("NAMESPACE/ACCOUNT"), "{error}");
    }

    #[test]
    fn the_verdict_comes_first_and_each_policy_has_a_row() {
        let report: PolicyReport = serde_json::from_value(contract::example("PolicyReport")).unwrap();
        let text = render(&report, Some(80), true);
        assert_eq!(
            text,
            "\
spiffe://cluster.local/ns/demo/sa/client to demo/web-0, port 8080: denied
  the Deny policy demo/not-that-port by its rules[0] denies it

POLICY              ACTION  APPLIES   SCOPE      RULES  BECAUSE
demo/not-that-port  deny    rules[0]  workload   1      it selects this workload
demo/clients        allow   no        namespace  2      it holds for every work…

demo/web-0, mode permissive, as of change 7 of its registry
"
        );
        let wide = render(&report, Some(200), true);
        assert!(
            wide.contains("it holds for every workload of namespace demo"),
            "{wide}"
        );
    }

    #[test]
    fn what_nobody_was_asked_about_is_no_verdict_and_notes_are_told() {
        let mut report: PolicyReport = serde_json::from_value(contract::example("PolicyReport")).unwrap();
        report.verdict = None;
        report.policies.clear();
        report.notes = vec!["no policy that allows holds\u{1b}".into()];
        assert_eq!(
            render(&report, Some(80), true),
            "demo/web-0, mode permissive, as of change 7 of its registry\n  no policy that allows holds?\n"
        );
    }
}
