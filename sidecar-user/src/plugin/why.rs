//! `why`: asks a proxy what would happen to a connection, and prints verdict and reasons. Knows no rule itself.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::access::{AccessArgs, Source};
use super::client::{self, ANSWER_TIMEOUT, Target};
use super::columns::printable;
use super::destination::{self, Destination};
use super::error::{Error, unwritten};
use super::screen::{Screen, ScreenArgs, Syntax};
use super::words::{failed, percent};
use crate::model::SpiffeId;
use crate::observe::{EndpointReport, FlowList, PodExplanation, WhyReport};

/// Of `listen.admin`, unless it is configured.
const DEFAULT_ADDRESS: &str = "127.0.0.1:15000";

#[derive(Debug, Args)]
pub struct Why {
    /// The pod that connects, and where to: an address, or SERVICE:PORT of the pod's namespace or SERVICE.NAMESPACE:PORT
    #[arg(value_names = ["POD", "ADDRESS:PORT"], num_args = 1..=2, required = true)]
    words: Vec<String>,
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
    /// What happened to the connections to there that did not end in order, and not what would happen
    #[arg(long, conflicts_with_all = ["inbound", "udp"])]
    past: bool,
    /// The same as POD
    #[arg(long, value_name = "POD")]
    pod: Option<String>,
    /// What happened since then: how long ago, such as 2h, or a time; not of one proxy [default: 10m; with --past, whatever it remembers]
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// What happened to those that ended in order too; of a proxy only with --past
    #[arg(long)]
    all: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// The same as -o json
    #[arg(long, conflicts_with = "output")]
    json: bool,
    #[command(flatten)]
    screen: ScreenArgs,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
    Yaml,
}

/// The last connections that are explained.
const PAST: usize = 10;

impl Why {
    /// Asks, and writes the answer.
    pub fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let (source, destination) = self.asked()?;
        let path = source.path(&self.path(destination));
        let target = &source.target;
        let answer = client::get(target, &path, Some(ANSWER_TIMEOUT)).map_err(explain)?;
        let body = answer.whole().map_err(explain)?;
        let unlike = |error: serde_json::Error| Error::NotWhy {
            target: target.to_string(),
            reason: error.to_string(),
        };
        let screen = self.screen.stdout();
        if self.past {
            let list: FlowList = serde_json::from_str(&body).map_err(unlike)?;
            return self.told(&list, destination, &screen, out);
        }
        let document: Value = serde_json::from_str(&body).map_err(unlike)?;
        // Only an agent has a past to tell of.
        let is_of_agent = document.get("past").is_some();
        if let Some(syntax) = self.syntax() {
            let kind = if is_of_agent {
                "PodExplanation"
            } else {
                "Explanation"
            };
            return screen.document(out, syntax, kind, &document);
        }
        if is_of_agent {
            let report: PodExplanation = serde_json::from_str(&body).map_err(unlike)?;
            let text = render_with_past(&report, self.all);
            return out.write_all(text.as_bytes()).map_err(unwritten);
        }
        let report: WhyReport = serde_json::from_str(&body).map_err(unlike)?;
        out.write_all(render(&report).as_bytes()).map_err(unwritten)
    }

    /// The newest first.
    fn told(
        &self,
        list: &FlowList,
        destination: SocketAddr,
        screen: &Screen,
        out: &mut impl Write,
    ) -> Result<(), Error> {
        let newest = list.closed.iter().rev().take(PAST);
        let past: Vec<WhyReport> = newest.map(WhyReport::of_flow).collect();
        if let Some(syntax) = self.syntax() {
            let body = serde_json::json!({ "explanations": past });
            return screen.document(out, syntax, "ExplanationList", &body);
        }
        if past.is_empty() {
            let what = if self.all {
                "connection"
            } else {
                "failed connection"
            };
            eprintln!("no {what} to {destination} is remembered");
        }
        let texts: Vec<String> = past.iter().map(render).collect();
        out.write_all(texts.join("\n").as_bytes()).map_err(unwritten)
    }

    fn syntax(&self) -> Option<Syntax> {
        match self.output {
            _ if self.json => Some(Syntax::Json),
            Output::Json => Some(Syntax::Json),
            Output::Yaml => Some(Syntax::Yaml),
            Output::Text => None,
        }
    }

    /// Whom to ask, and about which address.
    fn asked(&self) -> Result<(Source, SocketAddr), Error> {
        let usage = |reason| Error::Usage { reason };
        let (pod, to) = match (self.words.as_slice(), &self.pod) {
            ([pod, to], None) => (Some(pod), to),
            ([to], pod) => (pod.as_ref(), to),
            _ => return Err(usage("the pod is named twice: leave out --pod".to_owned())),
        };
        let to = destination::parse(to).map_err(usage)?;
        let scope = || pod.map(|pod| ("pod", pod.clone())).into_iter().collect();
        let at = |target| {
            match &to {
            Destination::At(at) => Ok((Source { target, scope: scope() }, *at)),
            Destination::Service { .. } => Err(usage(
                "the address of a Service is known to the API server, which is not asked where one endpoint is; write ADDRESS:PORT".to_owned(),
            )),
        }
        };
        match (self.access.endpoint(), pod) {
            (Some(target), _) => at(target),
            // In a pod, of its own proxy.
            (None, None) => at(Target::Tcp(DEFAULT_ADDRESS.into())),
            (None, Some(pod)) => {
                let source = self.access.source_of(pod)?;
                let at = match &to {
                    Destination::At(at) => *at,
                    to => {
                        let session = self.access.session()?;
                        let here = source
                            .namespace()
                            .unwrap_or_else(|| session.namespace().to_owned());
                        to.resolve(&session, &here)?
                    }
                };
                Ok((source, at))
            }
        }
    }

    fn path(&self, destination: SocketAddr) -> String {
        if self.past {
            let mut path = format!("/flows?state=closed&destination={destination}&limit={PAST}");
            if !self.all {
                path.push_str("&failed=true");
            }
            self.since(&mut path);
            return path;
        }
        let mut path = format!("/why?destination={destination}");
        self.since(&mut path);
        if let Some(from) = self.from {
            path.push_str(&format!("&source={from}"));
        }
        if let Some(identity) = &self.identity {
            path.push_str(&format!("&identity={identity}"));
        }
        if self.udp {
            path.push_str("&protocol=udp");
        }
        if self.all {
            path.push_str("&all=true");
        }
        path
    }
}

impl Why {
    fn since(&self, path: &mut String) {
        if let Some(since) = &self.since {
            path.push_str(&format!("&since={}", client::escaped(since)));
        }
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

/// What would happen, and then what happened.
fn render_with_past(report: &PodExplanation, all: bool) -> String {
    let mut text = match (&report.now, &report.problem) {
        (Some(now), _) => render(now),
        (None, Some(problem)) => {
            let pod = report
                .pod
                .as_deref()
                .map(|pod| format!("{pod}: "))
                .unwrap_or_default();
            format!(
                "{}\n  {}\n",
                printable(&format!("{pod}{}", problem.what)),
                printable(&problem.remedy)
            )
        }
        (None, None) => String::new(),
    };
    if report.past.is_empty() {
        let what = if all { "connection" } else { "failed connection" };
        text.push_str(&format!("\nno {what} to there is remembered of this time\n"));
    }
    for past in &report.past {
        text.push('\n');
        text.push_str(&render(past));
    }
    text
}

/// The verdict first, then what led to it.
pub(super) fn render(report: &WhyReport) -> String {
    let mut lines = vec![report.summary.clone()];
    lines.extend(report.reasons.iter().map(|reason| format!("  {reason}")));
    lines.extend(report.endpoints.iter().map(endpoint));
    if let Some(event) = &report.kernel_event {
        lines.push(format!("  counted as {event} in outrigger_kernel_events_total"));
    }
    lines.iter().map(|line| printable(line) + "\n").collect()
}

fn endpoint(endpoint: &EndpointReport) -> String {
    let mut line = format!("  endpoint {}, {}", endpoint.address, endpoint.transport);
    if !endpoint.identities.is_empty() {
        line.push_str(&format!(", who must prove {}", endpoint.identities.join(" or ")));
    }
    if let Some(state) = &endpoint.state {
        line.push_str(&format!("; {}", state.replace('_', " ")));
    }
    if let Some(open) = endpoint.open_connections {
        line.push_str(&format!(", {open} open"));
    }
    if let Some(chance) = endpoint.chance.filter(|_| endpoint.state.is_some()) {
        line.push_str(&format!(", chosen with {}", percent(chance)));
    }
    if let Some(failure) = &endpoint.last_failure {
        line.push_str(&format!("; {}", failed(failure)));
    }
    line
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
        let path = |args: &[&str]| {
            let why = why(args).unwrap();
            let (source, to) = why.asked().unwrap();
            source.path(&why.path(to))
        };
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
        assert_eq!(
            path(&[
                "10.0.0.1:80",
                "--past",
                "--pod",
                "demo/a",
                "--since",
                "10m",
                "--unix",
                "/agent"
            ]),
            "/flows?state=closed&destination=10.0.0.1:80&limit=10&failed=true&since=10m&pod=demo/a"
        );
        assert_eq!(
            path(&[
                "demo/a",
                "10.0.0.1:80",
                "--since",
                "2h",
                "--all",
                "--unix",
                "/agent"
            ]),
            "/why?destination=10.0.0.1:80&since=2h&all=true&pod=demo/a"
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
    fn a_name_is_for_a_cluster_and_a_pod_is_named_once() {
        let error = |args: &[&str]| why(args).unwrap().asked().unwrap_err().to_string();
        assert!(error(&["web.demo:80", "--unix", "/agent"]).contains("write ADDRESS:PORT"));
        assert!(error(&["web.demo"]).contains("SERVICE:PORT"));
        assert!(error(&["demo/a", "10.0.0.1:80", "--pod", "demo/b"]).contains("named twice"));
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
    fn an_agent_tells_what_would_happen_and_what_happened() {
        let report = |summary: &str| -> WhyReport {
            serde_json::from_value(serde_json::json!({
                "direction": "outbound", "protocol": "tcp", "source": null, "destination": "10.0.0.1:80",
                "verdict": "mesh", "summary": summary, "connect": null, "rule": null, "endpoints": [],
                "reasons": ["because"], "kernelEvent": null
            }))
            .unwrap()
        };
        let mut told = PodExplanation {
            pod: Some("demo/a".into()),
            now: Some(report("it goes")),
            problem: None,
            past: vec![report("it failed")],
        };
        assert_eq!(
            render_with_past(&told, false),
            "it goes\n  because\n\nit failed\n  because\n"
        );
        told.now = None;
        told.past.clear();
        told.problem = Some(crate::observe::Problem {
            what: "no sidecar".into(),
            remedy: "start it".into(),
        });
        assert_eq!(
            render_with_past(&told, false),
            "demo/a: no sidecar\n  start it\n\nno failed connection to there is remembered of this time\n"
        );
    }

    #[test]
    fn each_endpoint_tells_how_it_fares_and_what_failed() {
        let endpoint = |json: serde_json::Value| {
            let mut all =
                serde_json::json!({"address": "10.0.0.2:80", "transport": "hbone", "identities": []});
            for (name, value) in json.as_object().unwrap() {
                all[name] = value.clone();
            }
            super::endpoint(&serde_json::from_value(all).unwrap())
        };
        assert_eq!(
            endpoint(serde_json::json!({"state": "ready", "openConnections": 3, "chance": 0.666})),
            "  endpoint 10.0.0.2:80, hbone; ready, 3 open, chosen with 67%"
        );
        assert_eq!(
            endpoint(serde_json::json!({
                "state": "not_ready", "openConnections": 0, "chance": 0.0,
                "lastFailure": {"count": 2, "at": "2026-01-31T12:00:00.000Z", "by": "upstream",
                    "cause": "connection_refused", "detail": "503"}
            })),
            "  endpoint 10.0.0.2:80, hbone; not ready, 0 open, chosen with 0%; failed 2 times in a row, at \
             2026-01-31T12:00:00.000Z: connection_refused by upstream: 503"
        );
        assert_eq!(
            endpoint(serde_json::json!({})),
            "  endpoint 10.0.0.2:80, hbone",
            "of an older proxy"
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
