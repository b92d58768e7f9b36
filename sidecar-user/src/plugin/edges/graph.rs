//! Flows added up to edges. A connection of which the proxies of both its ends tell counts once. Draws nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::naming::{Names, is_outbound, port};
use super::window::Window;
use crate::observe::{FlowList, FlowReport};

/// The body of the kind `EdgeList`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::plugin) struct EdgeList {
    /// By source, destination and port.
    pub(super) edges: Vec<Edge>,
    /// How many were added up.
    pub(super) flows: usize,
    /// When the first of them was opened, and the last one closed.
    pub(super) from: Option<String>,
    pub(super) until: Option<String>,
    /// Over which the rates are.
    pub(super) window_seconds: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Edge {
    pub(super) source: Node,
    pub(super) destination: Node,
    /// The one that clients asked for, `namespace/hostname`.
    pub(super) service: Option<String>,
    /// Of the endpoint.
    pub(super) port: Option<u16>,
    pub(super) connections: u64,
    pub(super) open: u64,
    pub(super) failed: u64,
    /// Of the connections.
    pub(super) failed_share: f64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    /// Those that were opened in the window.
    pub(super) connections_per_second: Option<f64>,
    /// Both ways. A connection that is older than the window counts with the share of its life that lies in it.
    pub(super) bytes_per_second: Option<f64>,
    /// Of the connections of which the kernel has told.
    pub(super) rtt_median_seconds: Option<f64>,
    /// By mutual TLS, with both identities proven.
    pub(super) secured: bool,
    /// Its versions.
    pub(super) tls: Vec<String>,
    /// Why it is not secured.
    pub(super) reason: Option<String>,
    /// The most frequent first.
    pub(super) failures: Vec<Failures>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    pub(super) name: String,
    /// `workload`, `service`, `pod`, `address` or `strangers`.
    pub(super) kind: String,
    /// Those that are known by name.
    pub(super) pods: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::plugin) struct Failures {
    pub(in crate::plugin) cause: String,
    pub(in crate::plugin) by: String,
    pub(in crate::plugin) connections: u64,
}

/// A mesh destination is never dialled in plaintext, so nothing went there.
pub(in crate::plugin) const NO_TUNNEL: &str = "no tunnel came up";
/// Nor did anything go where there was nobody.
pub(in crate::plugin) const UNDIALLED: &str = "nobody was dialled";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    source: (String, &'static str),
    destination: (String, &'static str),
    port: Option<u16>,
    /// Plaintext and mesh are two edges.
    is_mesh: bool,
}

/// What the proxies of one end tell.
#[derive(Default)]
struct Tally {
    connections: u64,
    open: u64,
    failed: u64,
    sent: u64,
    received: u64,
    /// Opened in the window.
    fresh: u64,
    /// That went in the window.
    fresh_bytes: f64,
    rtts: Vec<f64>,
    failures: BTreeMap<(String, String), u64>,
    /// Why plaintext; the last one told holds.
    reason: Option<&'static str>,
}

#[derive(Default)]
struct Sum {
    /// Of the source's end, and of the destination's.
    ends: [Tally; 2],
    service: Option<String>,
    tls: BTreeSet<String>,
}

/// `asked`: the time that the flows were asked of.
pub(super) fn of(list: &FlowList, asked: Option<Window>) -> EdgeList {
    let flows: Vec<&FlowReport> = list.open.iter().chain(&list.closed).collect();
    let window = Window::of(&flows, asked);
    let names = Names::of(&flows);
    let mut sums: BTreeMap<Key, Sum> = BTreeMap::new();
    let mut pods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for flow in &flows {
        let key = key(&names, flow);
        if let Some(pod) = &flow.pod {
            let own = if is_outbound(flow) {
                &key.source
            } else {
                &key.destination
            };
            pods.entry(own.0.clone()).or_default().insert(pod.clone());
        }
        sums.entry(key).or_default().add(flow, window.as_ref());
    }
    let node = |(name, kind): (String, &str)| Node {
        pods: pods.get(&name).into_iter().flatten().cloned().collect(),
        kind: kind.to_owned(),
        name,
    };
    EdgeList {
        edges: sums
            .into_iter()
            .map(|(key, sum)| sum.edge(key, &node, window.as_ref()))
            .collect(),
        flows: flows.len(),
        from: flows.iter().map(|flow| &flow.opened).min().cloned(),
        until: flows
            .iter()
            .filter_map(|flow| flow.closed.as_ref())
            .max()
            .cloned(),
        window_seconds: window.map(|window| window.seconds()),
    }
}

fn key(names: &Names, flow: &FlowReport) -> Key {
    let own = || (names.destination(flow), port(flow), flow.transport == "hbone");
    // What found no endpoint belongs to those that did.
    let served = names.serving(flow).filter(|_| is_undialled(flow));
    let (destination, port, is_mesh) = served.unwrap_or_else(own);
    Key {
        source: names.source(flow),
        destination,
        port,
        is_mesh,
    }
}

/// Its proxy has refused it before there was an endpoint.
fn is_undialled(flow: &FlowReport) -> bool {
    is_outbound(flow) && flow.chosen_dst.is_none() && flow.closed_by.as_deref() == Some("us")
}

impl Sum {
    fn add(&mut self, flow: &FlowReport, window: Option<&Window>) {
        let outbound = is_outbound(flow);
        let tally = &mut self.ends[usize::from(!outbound)];
        tally.connections += 1;
        tally.open += u64::from(flow.state != "closed");
        tally.sent += flow.bytes_sent;
        tally.received += flow.bytes_received;
        if let Some(window) = window {
            let (is_fresh, share) = window.holds(flow);
            tally.fresh += u64::from(is_fresh);
            tally.fresh_bytes += share * (flow.bytes_sent + flow.bytes_received) as f64;
        }
        tally.rtts.extend(flow.peer_leg().and_then(|leg| leg.rtt_seconds));
        if let Some(cause) = flow.close_cause.as_deref().filter(|cause| *cause != "eof") {
            let by = flow.closed_by.as_deref().unwrap_or_default();
            tally.failed += 1;
            *tally
                .failures
                .entry((cause.to_owned(), by.to_owned()))
                .or_default() += 1;
        }
        if flow.transport != "hbone" {
            tally.reason = Some(plaintext(flow));
        }
        if outbound || self.service.is_none() {
            self.service = flow.service.clone().or(self.service.take());
        }
        self.tls
            .extend(flow.tls.iter().map(|tls| tls.version.to_string()));
    }

    fn edge(self, key: Key, node: &impl Fn((String, &'static str)) -> Node, window: Option<&Window>) -> Edge {
        let [source, destination] = self.ends;
        let per_second = |what: f64| window.map(|window| what / window.seconds());
        // The end that tells more has seen what the other one has.
        let tally = match destination.connections > source.connections {
            true => destination,
            false => source,
        };
        let secured = key.is_mesh && !self.tls.is_empty();
        let mut failures: Vec<Failures> = tally
            .failures
            .into_iter()
            .map(|((cause, by), connections)| Failures {
                cause,
                by,
                connections,
            })
            .collect();
        failures.sort_by_key(|failures| std::cmp::Reverse(failures.connections));
        Edge {
            source: node(key.source),
            destination: node(key.destination),
            service: self.service,
            port: key.port,
            connections: tally.connections,
            open: tally.open,
            failed: tally.failed,
            failed_share: tally.failed as f64 / tally.connections as f64,
            bytes_sent: tally.sent,
            bytes_received: tally.received,
            connections_per_second: per_second(tally.fresh as f64),
            bytes_per_second: per_second(tally.fresh_bytes),
            rtt_median_seconds: median(tally.rtts),
            secured,
            tls: self.tls.into_iter().filter(|_| key.is_mesh).collect(),
            reason: match (secured, key.is_mesh) {
                (true, _) => None,
                (_, true) => Some(NO_TUNNEL.to_owned()),
                _ => tally.reason.map(str::to_owned),
            },
            failures,
        }
    }
}

pub(in crate::plugin) fn median(mut values: Vec<f64>) -> Option<f64> {
    let middle = values.len() / 2;
    let (_, median, _) =
        (!values.is_empty()).then(|| values.select_nth_unstable_by(middle, f64::total_cmp))?;
    Some(*median)
}

/// Why it goes in plaintext.
pub(in crate::plugin) fn plaintext(flow: &FlowReport) -> &'static str {
    if flow.transport == "left_alone" {
        "left alone"
    } else if is_undialled(flow) {
        UNDIALLED
    } else if is_outbound(flow) {
        match flow.service.is_some() || flow.destination_identity.is_some() {
            true => "no sidecar there",
            false => "not in the registry",
        }
    } else {
        match &*flow.standing {
            "stranger" => "nobody proven",
            _ => "no sidecar at the client",
        }
    }
}

impl EdgeList {
    /// Of addresses that are pods' without a sidecar, the names.
    pub(super) fn name_pods(&mut self, pods: &BTreeMap<IpAddr, String>) {
        let nodes = self
            .edges
            .iter_mut()
            .flat_map(|edge| [&mut edge.source, &mut edge.destination]);
        for node in nodes.filter(|node| node.kind == "address") {
            if let Some(pod) = node
                .name
                .parse()
                .ok()
                .and_then(|address: IpAddr| pods.get(&address))
            {
                *node = Node {
                    name: pod.clone(),
                    kind: "pod".to_owned(),
                    pods: vec![pod.clone()],
                };
            }
        }
    }
}

impl Edge {
    /// Both ways.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_sent.saturating_add(self.bytes_received)
    }

    /// Nothing has come through.
    pub(super) fn is_down(&self) -> bool {
        let is_silent = self.failed > 0 && self.failed == self.connections && self.bytes_received == 0;
        is_silent || self.reason.as_deref() == Some(NO_TUNNEL)
    }

    pub(super) fn security(&self) -> String {
        security(self.secured, &self.tls, self.reason.as_deref())
    }

    /// `3 of 10 failed: denied`.
    pub(super) fn trouble(&self) -> Option<String> {
        let first = self.failures.first()?;
        let how_many = match self.failed == self.connections {
            true if self.failed == 1 => "failed".to_owned(),
            true => format!("all {} failed", self.failed),
            false => format!("{} of {} failed", self.failed, self.connections),
        };
        Some(format!("{how_many}: {}", first.cause.replace('_', " ")))
    }
}

/// `mTLS 1.3`, or why not.
pub(in crate::plugin) fn security<'a>(
    secured: bool,
    tls: impl IntoIterator<Item = &'a String>,
    reason: Option<&str>,
) -> String {
    if secured {
        let versions: Vec<&str> = tls
            .into_iter()
            .map(|tls| tls.trim_start_matches("TLSv"))
            .collect();
        return format!("mTLS {}", versions.join(", "));
    }
    let why = reason.unwrap_or("unknown");
    match reason {
        Some(NO_TUNNEL | UNDIALLED) => why.to_owned(),
        _ => format!("plaintext: {why}"),
    }
}
