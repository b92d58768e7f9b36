//! The JSON of `/flows`: the contract between the admin endpoint and those who read it.
//!
//! Written by the proxy and read by the kubectl plugin. A field that is not known is `null`, never absent.

use std::borrow::Cow;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::decided::DecisionReport;
use super::labels::{cause, direction, party, transport};
use super::leg_report::{LegReport, LegReports};
use super::standing::Standing;
use crate::model::{Bottleneck, Flow};

/// The answer to `GET /flows`; both lists oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowList {
    pub open: Vec<FlowReport>,
    pub closed: Vec<FlowReport>,
    /// More flows passed the filter than `limit` lets through, or than are kept: the oldest were left off.
    pub truncated: bool,
}

/// What a node's agent answers to `GET /flows?after=CURSOR`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowsSince {
    /// Oldest first.
    pub flows: Vec<FlowReport>,
    /// For the next question.
    pub cursor: String,
    /// So many flows of any pod came in between and are no longer here, or never were.
    pub lost: u64,
    /// The cursor was of an agent before this one: nobody knows what was lost with that.
    pub restarted: bool,
}

/// One line of `GET /flows?watch=true`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum WatchEvent {
    Opened {
        flow: FlowReport,
    },
    Closed {
        flow: FlowReport,
    },
    /// So many events of strangers were left out, because this watcher lagged behind.
    Skipped {
        strangers: u64,
    },
    /// The last line: this watcher was too slow, and what came after is lost to it.
    Dropped {
        reason: String,
    },
}

/// Names of closed sets are strings here, so that an older reader understands a newer writer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowReport {
    /// `namespace/name` of its pod, from an agent that knows many; `null` where the pod's own proxy answers.
    #[serde(default)]
    pub pod: Option<String>,
    pub id: u64,
    /// `connecting`, `open` or `closed`.
    pub state: Cow<'static, str>,
    pub direction: Cow<'static, str>,
    /// What its client has proved: `own`, `proven`, `plaintext` or `stranger`.
    #[serde(default)]
    pub standing: Cow<'static, str>,
    pub opened: String,
    pub closed: Option<String>,
    pub closed_by: Option<Cow<'static, str>>,
    pub close_cause: Option<Cow<'static, str>>,
    /// From open to close, or to now.
    pub age_seconds: f64,
    pub client: String,
    pub original_dst: Option<String>,
    pub chosen_dst: Option<String>,
    /// `namespace/hostname`
    pub service: Option<String>,
    pub source_identity: Option<String>,
    pub destination_identity: Option<String>,
    pub transport: Cow<'static, str>,
    pub tls: Option<TlsReport>,
    pub connect_seconds: Option<f64>,
    pub handshake_seconds: Option<f64>,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// What was decided on its way, in order.
    #[serde(default)]
    pub decisions: Vec<DecisionReport>,
    /// So many were left out in the middle.
    #[serde(default)]
    pub decisions_left_out: u32,
    /// How long there were bytes that the client, or the upstream, did not take.
    #[serde(default)]
    pub blocked_to_client_seconds: f64,
    #[serde(default)]
    pub blocked_to_upstream_seconds: f64,
    /// `application`, `network`, `peer_proxy` or `peer_application`.
    #[serde(default)]
    pub bottleneck: Option<Cow<'static, str>>,
    #[serde(default)]
    pub tcp: LegReports,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsReport {
    pub version: Cow<'static, str>,
    pub cipher: Cow<'static, str>,
    pub key_exchange: Cow<'static, str>,
    pub reused_tunnel: bool,
}

impl FlowReport {
    /// The connection that leaves the pod.
    pub fn peer_leg(&self) -> Option<&LegReport> {
        match &*self.direction {
            "inbound" => self.tcp.client.as_ref(),
            _ => self.tcp.upstream.as_ref(),
        }
    }

    pub fn new(flow: &Flow, now: SystemTime) -> Self {
        let state = match (&flow.closed, flow.is_usable()) {
            (Some(_), _) => "closed",
            (None, true) => "open",
            (None, false) => "connecting",
        };
        let end = flow.closed.map_or(now, |(at, _)| at);
        // Of a flow that has ended nothing is held up any more.
        let at = Instant::now();
        Self {
            pod: None,
            id: flow.id,
            state: state.into(),
            direction: direction(flow.direction).into(),
            standing: Standing::of(flow).name().into(),
            opened: rfc3339(flow.opened),
            closed: flow.closed.map(|(at, _)| rfc3339(at)),
            closed_by: flow.closed.map(|(_, outcome)| party(outcome.by).into()),
            close_cause: flow.closed.map(|(_, outcome)| cause(outcome.cause).into()),
            // The clock may have been set back meanwhile.
            age_seconds: end.duration_since(flow.opened).unwrap_or_default().as_secs_f64(),
            client: flow.client.to_string(),
            original_dst: flow.original_dst.map(|a| a.to_string()),
            chosen_dst: flow.chosen_dst.map(|a| a.to_string()),
            service: flow.service.as_ref().map(ToString::to_string),
            source_identity: flow.source_identity.as_ref().map(ToString::to_string),
            destination_identity: flow.destination_identity.as_ref().map(ToString::to_string),
            transport: transport(flow.transport).into(),
            tls: flow.tls.as_ref().map(|tls| TlsReport {
                version: tls.version.into(),
                cipher: tls.cipher.into(),
                key_exchange: tls.key_exchange.into(),
                reused_tunnel: tls.reused_tunnel,
            }),
            connect_seconds: flow.connect_time.map(|t| t.as_secs_f64()),
            handshake_seconds: flow.handshake_time.map(|t| t.as_secs_f64()),
            bytes_sent: flow.bytes.sent(),
            bytes_received: flow.bytes.received(),
            decisions: flow.decisions.all().iter().map(DecisionReport::new).collect(),
            decisions_left_out: flow.decisions.left_out(),
            blocked_to_client_seconds: flow.bytes.to_client.read(at).as_secs_f64(),
            blocked_to_upstream_seconds: flow.bytes.to_upstream.read(at).as_secs_f64(),
            bottleneck: flow.bottleneck.map(|what| Bottleneck::name(what).into()),
            tcp: flow.legs.as_deref().map(LegReports::new).unwrap_or_default(),
        }
    }
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    // A clock before 1970 cannot be written in this format.
    humantime::format_rfc3339_millis(time.max(UNIX_EPOCH)).to_string()
}
