//! The JSON of one of a flow's TCP connections: the kernel's figures, each with its unit in its name.

use serde::{Deserialize, Serialize};

use crate::model::{LegFacts, Legs, Queue};

/// The connections on both sides of the proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegReports {
    pub client: Option<LegReport>,
    pub upstream: Option<LegReport>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegReport {
    /// The connection carries other flows as well, and the figures count them all.
    pub tunnel: bool,
    pub rtt_seconds: Option<f64>,
    pub min_rtt_seconds: Option<f64>,
    pub segments_sent: u64,
    pub segments_received: u64,
    pub segments_retransmitted: u64,
    pub bytes_sent: Option<u64>,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub bytes_retransmitted: Option<u64>,
    pub delivery_rate_bytes_per_second: u64,
    pub congestion_window_segments: u32,
    pub segment_bytes: u32,
    pub unacked_segments: u32,
    pub unsent_bytes: Option<u32>,
    pub busy_seconds: Option<f64>,
    pub window_limited_seconds: Option<f64>,
    pub buffer_limited_seconds: Option<f64>,
}

impl LegReports {
    pub(super) fn new(legs: &Legs) -> Self {
        Self {
            client: legs.client.as_ref().map(LegReport::new),
            upstream: legs.upstream.as_ref().map(LegReport::new),
        }
    }
}

impl LegReport {
    fn new(leg: &LegFacts) -> Self {
        let LegFacts { tcp, is_tunnel } = leg;
        let time =
            |pick: fn(&Queue) -> std::time::Duration| tcp.queue.as_ref().map(|q| pick(q).as_secs_f64());
        Self {
            tunnel: *is_tunnel,
            rtt_seconds: tcp.rtt.map(|t| t.as_secs_f64()),
            min_rtt_seconds: tcp.min_rtt.map(|t| t.as_secs_f64()),
            segments_sent: tcp.segments_sent,
            segments_received: tcp.segments_received,
            segments_retransmitted: tcp.segments_retransmitted,
            bytes_sent: tcp.bytes_sent,
            bytes_acked: tcp.bytes_acked,
            bytes_received: tcp.bytes_received,
            bytes_retransmitted: tcp.bytes_retransmitted,
            delivery_rate_bytes_per_second: tcp.delivery_rate,
            congestion_window_segments: tcp.congestion_window,
            segment_bytes: tcp.segment_size,
            unacked_segments: tcp.unacked,
            unsent_bytes: tcp.queue.map(|queue| queue.unsent),
            busy_seconds: time(|queue| queue.busy),
            window_limited_seconds: time(|queue| queue.window_limited),
            buffer_limited_seconds: time(|queue| queue.buffer_limited),
        }
    }
}
