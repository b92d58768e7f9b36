//! `why`: asks a proxy what would happen to a connection, and prints verdict and reasons. Knows no rule itself.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::client::{self, ANSWER_TIMEOUT, Target};
use super::error::{Error, unwritten};
use super::table::printable;
use crate::model::SpiffeId;
use crate::observe::WhyReport;

/// Of `listen.admin`, unless it is configured.
const DEFAULT_ADDRESS: &str = "127.0.0.1:15000";

#[derive(Debug, Args)]
pub struct Why {
    // Not a comment of the documentation, which would take the brackets for a link.
    #[arg(
        value_name = "ADDRESS:PORT",
        value_parser = destination,
        help = "Where the connection goes, e.g. 10.0.0.1:80 or [fd00::1]:80"
    )]
    destination: SocketAddr,
    /// The connection comes from outside to an address of the pod
    #[arg(long, requires = "from")]
    inbound: bool,
    /// Who opens it
    #[arg(long, value_name = "ADDRESS", requires = "inbound")]
    from: Option<IpAddr>,
    /// Whom it proves to be, e.g. spiffe://cluster.local/ns/demo/sa/client: it comes through the mesh
    #[arg(long, value_name = "SPIFFE-ID", requires = "inbound", conflicts_with = "udp")]
    identity: Option<SpiffeId>,
    /// UDP instead of TCP
    #[arg(long)]
    udp: bool,
    /// The answer as the proxy gives it
    #[arg(long)]
    json: bool,
    /// Admin endpoint of the proxy [default: 127.0.0.1:15000]
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "unix")]
    address: Option<String>,
    /// Admin socket of the proxy, e.g. /run/outrigger/admin.sock
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
}

fn destination(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an address and a port, such as 10.0.0.1:80 or [fd00::1]:80; of a name, look up its addresses first"
            .to_owned()
    })
}

impl Why {
    /// Asks, and writes the answer.
    pub fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let target = match (&self.unix, &self.address) {
            (Some(path), _) => Target::Unix(path.clone()),
            (None, Some(address)) => Target::Tcp(address.clone()),
            (None, None) => Target::Tcp(DEFAULT_ADDRESS.into()),
        };
        let answer = client::get(&target, &self.path(), Some(ANSWER_TIMEOUT)).map_err(explain)?;
        let body = answer.whole().map_err(explain)?;
        let text = if self.json {
            body
        } else {
            let report: WhyReport = serde_json::from_str(&body).map_err(|error| Error::NotWhy {
                target: target.to_string(),
                reason: error.to_string(),
            })?;
            render(&report)
        };
        out.write_all(text.as_bytes()).map_err(unwritten)
    }

    fn path(&self) -> String {
        let mut path = format!("/why?destination={}", self.destination);
        if let Some(from) = self.from {
            path.push_str(&format!("&source={from}"));
        }
        if let Some(identity) = &self.identity {
            path.push_str(&format!("&identity={identity}"));
        }
        if self.udp {
            path.push_str("&protocol=udp");
        }
        path
    }
}

fn explain(error: Error) -> Error {
    match error {
        Error::Unreachable { target, source } => Error::NoProxy {
            target,
            cause: source,
        },
        // The proxy's own words about the question.
        Error::Refused {
            status: 400, body, ..
        } => Error::Unanswerable { body },
        other => other,
    }
}

/// The verdict first, then what led to it.
pub(super) fn render(report: &WhyReport) -> String {
    let mut lines = vec![report.summary.clone()];
    lines.extend(report.reasons.iter().map(|reason| format!("  {reason}")));
    for endpoint in &report.endpoints {
        let mut line = format!("  endpoint {}, {}", endpoint.address, endpoint.transport);
        if !endpoint.identities.is_empty() {
            line.push_str(&format!(", who must prove {}", endpoint.identities.join(" or ")));
        }
        lines.push(line);
    }
    if let Some(event) = &report.kernel_event {
        lines.push(format!("  counted as {event} in outrigger_kernel_events_total"));
    }
    lines.iter().map(|line| printable(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        why: Why,
    }

    fn why(args: &[&str]) -> Result<Why, clap::Error> {
        Line::try_parse_from(std::iter::once(&"why").chain(args)).map(|line| line.why)
    }

    #[test]
    fn flags_become_the_question() {
        let path = |args: &[&str]| why(args).unwrap().path();
        assert_eq!(path(&["10.0.0.1:80"]), "/why?destination=10.0.0.1:80");
        assert_eq!(
            path(&["[fd00::1]:53", "--udp"]),
            "/why?destination=[fd00::1]:53&protocol=udp"
        );
        assert_eq!(
            path(&["10.0.0.2:80", "--inbound", "--from", "10.0.0.1"]),
            "/why?destination=10.0.0.2:80&source=10.0.0.1"
        );
        let id = "spiffe://cluster.local/ns/demo/sa/client";
        assert_eq!(
            path(&["10.0.0.2:80", "--inbound", "--from", "10.0.0.1", "--identity", id]),
            format!("/why?destination=10.0.0.2:80&source=10.0.0.1&identity={id}")
        );
        assert!(why(&["10.0.0.2:80", "--identity", id]).is_err(), "only inbound");
        assert!(
            why(&[
                "10.0.0.2:80",
                "--inbound",
                "--from",
                "10.0.0.1",
                "--identity",
                "a"
            ])
            .is_err()
        );
        assert!(why(&["10.0.0.2:80", "--inbound"]).is_err(), "who comes in?");
        assert!(why(&["10.0.0.2:80", "--from", "10.0.0.1"]).is_err());
    }

    #[test]
    fn a_name_is_no_address_and_the_message_says_so() {
        let error = why(&["web.demo:80"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("look up its addresses"), "{error}");
    }

    #[test]
    fn without_a_proxy_the_address_tried_and_the_flags_are_named() {
        let error = why(&["10.0.0.1:80", "--address", "127.0.0.1:1"])
            .unwrap()
            .run(&mut Vec::new())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("127.0.0.1:1 does not answer") && error.contains("--unix PATH"),
            "{error}"
        );
    }

    #[test]
    fn the_verdict_comes_first() {
        let report: WhyReport = serde_json::from_str(
            r#"{"direction": "outbound", "protocol": "tcp", "source": null, "destination": "10.0.0.1:80",
                "verdict": "mesh", "summary": "it goes", "connect": "truthful", "rule": null,
                "endpoints": [{"address": "10.0.0.2:80", "transport": "hbone", "identities": ["a", "b"]}],
                "reasons": ["first", "second"], "kernelEvent": "redirected"}"#,
        )
        .unwrap();
        assert_eq!(
            render(&report),
            "it goes\n  first\n  second\n  endpoint 10.0.0.2:80, hbone, who must prove a or b\n  \
             counted as redirected in outrigger_kernel_events_total\n"
        );
    }
}
