//! The query string of `/flows`: which flows, how many, once or as they happen. The same question to a proxy, whose flows are
//! records, and to who has only their reports.

use std::net::SocketAddr;
use std::time::Duration;

use super::labels::{cause, direction};
use super::report::FlowReport;
use super::standing::Standing;
use crate::model::{Cause, Direction, Flow};

#[derive(Debug, Default)]
pub struct Query {
    pub filter: FlowFilter,
    pub state: Option<State>,
    pub limit: Option<usize>,
    pub watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    Closed,
}

/// Which flows pass; a field that is `None` lets all pass.
#[derive(Debug, Default)]
pub struct FlowFilter {
    direction: Option<Direction>,
    service: Option<String>,
    identity: Option<String>,
    standing: Option<Standing>,
    /// What the client asked for, or the endpoint that it got.
    destination: Option<SocketAddr>,
    /// Of either of the two.
    port: Option<u16>,
    /// Whether it ended other than in order.
    failed: Option<bool>,
    /// Why it ended.
    cause: Option<Cause>,
    /// Its connect took longer, or a round trip to its peer does.
    slower_than: Option<Duration>,
}

impl Query {
    /// An error is a sentence for the caller.
    pub fn parse(query: &str) -> Result<Self, String> {
        Self::parse_with(query, |_, _| Ok(false))
    }

    /// With parameters of the caller's own: `further` says whether it knows one.
    pub fn parse_with(
        query: &str,
        mut further: impl FnMut(&str, &str) -> Result<bool, String>,
    ) -> Result<Self, String> {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |want: &str| Err(misfit(&name, &value, want));
            match (&*name, &*value) {
                ("direction", "inbound") => parsed.filter.direction = Some(Direction::Inbound),
                ("direction", "outbound") => parsed.filter.direction = Some(Direction::Outbound),
                ("direction", _) => return wrong("inbound or outbound"),
                ("state", "open") => parsed.state = Some(State::Open),
                ("state", "closed") => parsed.state = Some(State::Closed),
                ("state", _) => return wrong("open or closed"),
                ("watch", "" | "true" | "1") => parsed.watch = true,
                ("watch", "false" | "0") => parsed.watch = false,
                ("watch", _) => return wrong("true or false"),
                ("limit", n) => match n.parse() {
                    Ok(n) => parsed.limit = Some(n),
                    Err(_) => return wrong("a whole number"),
                },
                ("failed", "" | "true" | "1") => parsed.filter.failed = Some(true),
                ("failed", "false" | "0") => parsed.filter.failed = Some(false),
                ("failed", _) => return wrong("true or false"),
                ("destination", at) => match at.parse() {
                    Ok(at) => parsed.filter.destination = Some(at),
                    Err(_) => return wrong("an address and a port such as 10.0.0.1:80 or [fd00::1]:80"),
                },
                ("port", number) => match number.parse() {
                    Ok(port) => parsed.filter.port = Some(port),
                    Err(_) => return wrong("a port such as 443"),
                },
                ("cause", name) => match Cause::ALL.into_iter().find(|known| cause(*known) == name) {
                    Some(known) => parsed.filter.cause = Some(known),
                    None => return wrong(&format!("one of {}", cause_names().join(", "))),
                },
                ("slowerThan", text) => match humantime::parse_duration(text) {
                    Ok(time) => parsed.filter.slower_than = Some(time),
                    Err(_) => return wrong("a time such as 100ms"),
                },
                ("service", _) => parsed.filter.service = Some(value.into_owned()),
                ("identity", _) => parsed.filter.identity = Some(value.into_owned()),
                ("standing", name) => match Standing::named(name) {
                    Some(standing) => parsed.filter.standing = Some(standing),
                    None => return wrong("own, proven, plaintext or stranger"),
                },
                _ if further(&name, &value)? => {}
                _ => {
                    return Err(format!(
                        "unknown parameter `{}`; there are direction, service, identity, standing, destination, port, failed, cause, slowerThan, \
                         state, limit, watch",
                        name.escape_debug()
                    ));
                }
            }
        }
        Ok(parsed)
    }
}

impl FlowFilter {
    pub(super) fn passes(&self, flow: &Flow) -> bool {
        let service = flow.service.as_ref();
        self.lets_pass(&Seen {
            direction: direction(flow.direction),
            service: service.map(|name| (&*name.namespace, &*name.hostname)),
            identities: [&flow.source_identity, &flow.destination_identity]
                .map(|id| id.as_ref().map(|id| id.as_str())),
            standing: Standing::of(flow).name(),
            is_to: &|at| [flow.original_dst, flow.chosen_dst].contains(&Some(at)),
            has_port: &|port| {
                let mut ends = [flow.original_dst, flow.chosen_dst].into_iter().flatten();
                ends.any(|at| at.port() == port)
            },
            cause: flow.closed.map(|(_, outcome)| cause(outcome.cause)),
            times: [flow.connect_time, flow.peer_leg().and_then(|leg| leg.tcp.rtt)]
                .map(|time| time.map(|time| time.as_secs_f64())),
        })
    }

    /// The same of a report.
    pub fn passes_report(&self, flow: &FlowReport) -> bool {
        self.lets_pass(&Seen {
            direction: &flow.direction,
            service: flow.service.as_deref().and_then(|name| name.split_once('/')),
            identities: [
                flow.source_identity.as_deref(),
                flow.destination_identity.as_deref(),
            ],
            standing: &flow.standing,
            is_to: &|at| {
                let at = at.to_string();
                [&flow.original_dst, &flow.chosen_dst]
                    .into_iter()
                    .flatten()
                    .any(|to| *to == at)
            },
            has_port: &|port| {
                let ends = [&flow.original_dst, &flow.chosen_dst].into_iter().flatten();
                ends.filter_map(|at| at.rsplit_once(':')?.1.parse().ok())
                    .any(|at: u16| at == port)
            },
            cause: flow.close_cause.as_deref(),
            times: [
                flow.connect_seconds,
                flow.peer_leg().and_then(|leg| leg.rtt_seconds),
            ],
        })
    }

    fn lets_pass(&self, flow: &Seen<'_>) -> bool {
        let service = |wanted: &str| {
            flow.service
                .is_some_and(|(namespace, hostname)| match wanted.split_once('/') {
                    Some(wanted) => (namespace, hostname) == wanted,
                    None => hostname == wanted,
                })
        };
        let identity = |wanted: &str| flow.identities.into_iter().flatten().any(|id| names(id, wanted));
        self.direction
            .is_none_or(|wanted| direction(wanted) == flow.direction)
            && self.service.as_deref().is_none_or(service)
            && self.identity.as_deref().is_none_or(identity)
            && self.standing.is_none_or(|wanted| wanted.name() == flow.standing)
            && self.destination.is_none_or(flow.is_to)
            && self.port.is_none_or(flow.has_port)
            && self
                .failed
                .is_none_or(|wanted| wanted == flow.cause.is_some_and(|name| name != cause(Cause::Eof)))
            && self.cause.is_none_or(|wanted| flow.cause == Some(cause(wanted)))
            && self.slower_than.is_none_or(|limit| {
                let mut times = flow.times.into_iter().flatten();
                times.any(|time| time > limit.as_secs_f64())
            })
    }
}

/// What a filter looks at.
struct Seen<'a> {
    direction: &'a str,
    /// Namespace and hostname.
    service: Option<(&'a str, &'a str)>,
    identities: [Option<&'a str>; 2],
    standing: &'a str,
    is_to: &'a dyn Fn(SocketAddr) -> bool,
    has_port: &'a dyn Fn(u16) -> bool,
    /// Of its end.
    cause: Option<&'a str>,
    /// Of its connect, and of a round trip to its peer, in seconds.
    times: [Option<f64>; 2],
}

/// What `cause` may be.
pub fn cause_names() -> [&'static str; Cause::ALL.len()] {
    Cause::ALL.map(cause)
}

/// The whole identity, or `namespace/account`.
fn names(id: &str, wanted: &str) -> bool {
    let path = id
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once("/ns/"));
    let account = path.and_then(|(_, account)| account.split_once("/sa/"));
    id == wanted || (account.is_some() && account == wanted.split_once('/'))
}

/// Escaped, because the answer is printed on terminals.
pub fn misfit(name: &str, value: &str, want: &str) -> String {
    let (name, value) = (name.escape_debug(), value.escape_debug());
    format!("`{name}={value}`: it must be {want}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_it_wants() {
        let query = Query::parse("direction=inbound&state=open&limit=5&watch&identity=demo%2Fweb").unwrap();
        assert_eq!(
            (query.state, query.limit, query.watch),
            (Some(State::Open), Some(5), true)
        );
        assert_eq!(query.filter.identity.as_deref(), Some("demo/web"));
    }

    #[test]
    fn a_wrong_query_is_answered_with_what_is_right() {
        for (query, part) in [
            ("direction=up", "`direction=up`: it must be inbound or outbound"),
            ("limit=-1", "whole number"),
            ("state=half", "open or closed"),
            ("standing=known", "own, proven, plaintext or stranger"),
            ("destination=web:80", "an address and a port"),
            ("failed=maybe", "true or false"),
            ("port=http", "a port such as 443"),
            ("port=65536", "a port such as 443"),
            ("cause=bad", "one of eof, reset, connection_refused"),
            ("slowerThan=5", "a time such as 100ms"),
            ("colour=red", "unknown parameter `colour`"),
        ] {
            let error = Query::parse(query).unwrap_err();
            assert!(error.contains(part), "{query}: {error}");
        }
    }

    /// A report says of its flow whatever a filter asks.
    #[test]
    fn a_flow_and_its_report_pass_the_same_filters() {
        use crate::model::{LegFacts, Legs, Outcome, Party, ServiceName, SpiffeId, TcpFacts};
        use std::time::SystemTime;
        let mut flow = Flow::new(
            Direction::Outbound,
            "10.0.0.1:4000".parse().unwrap(),
            SystemTime::now(),
        );
        let mut both = vec![flow.clone()];
        flow.service = Some(ServiceName {
            namespace: "demo".into(),
            hostname: "web.demo.svc".into(),
        });
        flow.original_dst = Some("[fd00::1]:80".parse().unwrap());
        flow.source_identity = Some(SpiffeId::new("td.test", "demo", "client").unwrap());
        flow.closed = Some((SystemTime::now(), Outcome::new(Party::Us, Cause::NoEndpoint)));
        flow.connect_time = Some(Duration::from_millis(30));
        let leg = |rtt| {
            let tcp = TcpFacts {
                rtt: Some(Duration::from_millis(rtt)),
                ..TcpFacts::default()
            };
            Some(LegFacts { tcp, is_tunnel: true })
        };
        flow.legs = Some(Box::new(Legs {
            client: leg(90),
            upstream: leg(2),
        }));
        both.push(flow.clone());
        // Now the peer is the client.
        flow.direction = Direction::Inbound;
        flow.chosen_dst = Some("10.0.0.9:8080".parse().unwrap());
        both.push(flow);
        let mut passed = 0;
        for query in [
            "direction=inbound",
            "service=demo/web.demo.svc",
            "service=web.demo.svc",
            "service=other/web.demo.svc",
            "identity=demo/client",
            "identity=spiffe://td.test/ns/demo/sa/client",
            "identity=demo",
            "standing=proven",
            "destination=[fd00::1]:80",
            "destination=10.0.0.1:80",
            "failed",
            "failed=false",
            "port=80",
            "port=8080",
            "port=4000",
            "cause=no_endpoint",
            "cause=eof",
            "slowerThan=20ms",
            "slowerThan=30ms",
            "slowerThan=90ms",
        ] {
            let filter = Query::parse(query).unwrap().filter;
            for flow in &both {
                let report = FlowReport::new(flow, SystemTime::now());
                assert_eq!(
                    filter.passes(flow),
                    filter.passes_report(&report),
                    "{query}: {report:?}"
                );
                passed += usize::from(filter.passes(flow));
            }
        }
        assert_eq!(passed, 1 + 2 + 2 + 2 + 2 + 1 + 2 + 2 + 1 + 2 + 1 + 2 + 2 + 1);
    }
}
