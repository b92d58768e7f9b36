//! `identity`: the certificate by which a pod proves who it is: whence it came, how long it lives, when the next one is due, and why
//! there is none. Only shows what the proxy says at `/identity`.

use std::io::Write;
use std::time::SystemTime;

use clap::Args;
use serde_json::Value;

use super::access::AccessArgs;
use super::columns::{Column, Columns, WHOLE, column, printable};
use super::error::{Error, unwritten};
use super::of_itself;
use super::screen::{Output, ScreenArgs};
use super::words::age;
use crate::observe::{CertificateReport, IdentityReport};

#[derive(Debug, Args)]
pub(super) struct Identity {
    /// The pod, of another namespace as NAMESPACE/POD; none at the endpoint of a proxy
    #[arg(value_name = "POD")]
    pod: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    screen: ScreenArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

const COLUMNS: [Column; 7] = [
    column("WHAT", 0, WHOLE),
    column("SUBJECT", 0, 48),
    column("KEY", 3, WHOLE),
    column("EXPIRES", 0, WHOLE),
    column("ISSUER", 4, 12),
    column("SERIAL", 5, 12),
    column("SHA256", 2, 16),
];

impl Identity {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let source = of_itself::source(&self.access, self.pod.as_deref())?;
        let body = of_itself::ask(&source, "/identity")?;
        let unlike = |error: serde_json::Error| Error::Unlike {
            target: source.target.to_string(),
            what: "identity",
            reason: error.to_string(),
        };
        let report: IdentityReport = serde_json::from_str(&body).map_err(unlike)?;
        let screen = self.screen.stdout();
        let Some(syntax) = self.output.syntax() else {
            let room = screen.width.filter(|_| self.output == Output::Table);
            let text = render(&report, room, SystemTime::now());
            return out.write_all(text.as_bytes()).map_err(unwritten);
        };
        let report: Value = serde_json::from_str(&body).map_err(unlike)?;
        screen.document(out, syntax, "Identity", &report)
    }
}

/// What matters first, and then each certificate in a row.
pub(super) fn render(report: &IdentityReport, room: Option<usize>, now: SystemTime) -> String {
    let mut lines = Vec::new();
    if let Some(pod) = &report.pod {
        lines.push(field("Pod", pod));
    }
    lines.push(field("Identity", &report.identity));
    lines.push(field("State", &state(report)));
    lines.push(field("Signed by", &signer(report)));
    if let Some(obtained) = &report.obtained {
        lines.push(field(
            "Obtained",
            &format!("{} ({obtained})", distance(obtained, now)),
        ));
    }
    if let Some(next) = &report.next_renewal {
        let what = match &*report.source.kind {
            "files" => "Files read",
            _ => "Renewal",
        };
        lines.push(field(what, &format!("{} ({next})", distance(next, now))));
    }
    lines.push(field("Failures", &failures(report)));
    let mut text: String = lines.iter().map(|line| printable(line) + "\n").collect();
    if report.chain.len() + report.roots.len() > 0 {
        text.push('\n');
        text.push_str(&certificates(report, room, now));
    }
    text
}

fn field(name: &str, value: &str) -> String {
    format!("{:<11}{value}", format!("{name}:"))
}

fn state(report: &IdentityReport) -> String {
    let left = report.remaining_seconds.unwrap_or_default();
    match (&*report.state, &report.not_after) {
        ("valid", Some(end)) => format!("valid for {} (until {end})", age(left.max(0) as f64)),
        _ => format!("{}: {}", report.state, report.summary),
    }
}

fn signer(report: &IdentityReport) -> String {
    let from = report
        .source
        .from
        .as_deref()
        .map(|from| format!(" {from}"))
        .unwrap_or_default();
    let how = match &*report.source.kind {
        "agent" => "through the agent of its node".to_owned(),
        "authority" => format!("asked of the authority{from}"),
        "files" => format!("read from files{from}"),
        other => other.to_owned(),
    };
    match &report.source.signer {
        Some(signer) => format!("{signer}, {how}"),
        None => format!("nobody yet, {how}"),
    }
}

fn failures(report: &IdentityReport) -> String {
    match (report.failures, &report.last_error) {
        (0, _) => "none since the last success".to_owned(),
        (n, Some(error)) => format!("{n} since the last success; the last one: {error}"),
        (n, None) => format!("{n} since the last success"),
    }
}

fn certificates(report: &IdentityReport, room: Option<usize>, now: SystemTime) -> String {
    let mut columns = Columns::new(COLUMNS.into(), room, true);
    for (n, cert) in report.chain.iter().enumerate() {
        let what = if n == 0 { "leaf" } else { "intermediate" };
        columns.push(row(what, cert, now));
    }
    for cert in &report.roots {
        columns.push(row("root", cert, now));
    }
    columns.text()
}

fn row(what: &str, cert: &CertificateReport, now: SystemTime) -> Vec<String> {
    vec![
        what.to_owned(),
        cert.subject.clone(),
        cert.key.clone(),
        distance(&cert.not_after, now),
        cert.issuer.clone(),
        cert.serial.clone(),
        cert.sha256.clone(),
    ]
}

/// How far away a time is.
fn distance(time: &str, now: SystemTime) -> String {
    let Ok(time) = humantime::parse_rfc3339(time) else {
        return time.to_owned();
    };
    match time.duration_since(now) {
        Ok(left) => format!("in {}", age(left.as_secs_f64())),
        Err(past) => format!("{} ago", age(past.duration().as_secs_f64())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::contract;
    use super::*;

    fn report() -> IdentityReport {
        serde_json::from_value(contract::example("Identity")).unwrap()
    }

    fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-01-31T12:00:00Z").unwrap() + Duration::from_secs(3600)
    }

    #[test]
    fn a_certificate_fits_a_terminal() {
        let text = render(&report(), Some(80), now());
        assert_eq!(
            text,
            "\
Pod:       demo/web-0
Identity:  spiffe://cluster.local/ns/demo/sa/web
State:     valid for 11h (until 2026-02-01T00:00:00.000Z)
Signed by: O=cluster.local, through the agent of its node
Obtained:  60m ago (2026-01-31T12:00:00.000Z)
Renewal:   in 4h (2026-01-31T17:48:00Z)
Failures:  none since the last success

WHAT  SUBJECT                                EXPIRES   SHA256
leaf  spiffe://cluster.local/ns/demo/sa/web  in 11h    5f2c1e0d9b8a796857463524…
root  O=cluster.local                        in 3650d  a1b2c3d4e5f60718293a4b5c…
"
        );
        let wide = render(&report(), None, now());
        assert!(wide.contains("ECDSA P-256") && wide.contains("ISSUER"), "{wide}");
    }

    #[test]
    fn why_there_is_none_is_said_in_full_and_drives_no_terminal() {
        let mut report = report();
        report.state = "expired".into();
        report.summary = "its certificate expired at 2026-01-31T11:00:00.000Z".into();
        report.failures = 7;
        report.last_error = Some("the authority refused\u{1b}[31m".into());
        (report.chain, report.roots, report.source.signer) = (Vec::new(), Vec::new(), None);
        let text = render(&report, Some(80), now());
        assert!(
            text.contains("State:     expired: its certificate expired at 2026"),
            "{text}"
        );
        assert!(
            text.contains("7 since the last success; the last one: the authority refused?[31m"),
            "{text}"
        );
        assert!(text.contains("nobody yet"), "{text}");
        assert!(!text.contains("WHAT"), "{text}");
    }
}
