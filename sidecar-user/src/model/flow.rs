//! A flow: the story of one intercepted connection, and how it ended.
//!
//! Facts only; `observe/` counts and shows them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::decision::{Decided, Decision, Decisions};
use super::identity::SpiffeId;
use super::outcome::{Outcome, Transport};
use super::service::ServiceName;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What the TLS session of a flow was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsFacts {
    /// e.g. `TLSv1.3`
    pub version: &'static str,
    /// e.g. `TLS13_AES_128_GCM_SHA256`
    pub cipher: &'static str,
    /// e.g. `X25519MLKEM768`
    pub key_exchange: &'static str,
    /// The tunnel was already there when the flow began, so the flow paid for no handshake.
    pub reused_tunnel: bool,
}

/// Bytes so far, readable while the flow runs. Sent: from the client towards the upstream.
#[derive(Debug, Default)]
pub struct Bytes {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Bytes {
    /// A load and a store, not an atomic addition: a flow lives on one shard, which is its only writer.
    pub fn add_sent(&self, n: u64) {
        self.sent.store(self.sent.load(Relaxed) + n, Relaxed);
    }

    pub fn add_received(&self, n: u64) {
        self.received.store(self.received.load(Relaxed) + n, Relaxed);
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }
}

/// One intercepted connection. Fields fill up as the connection walks; what is not known yet is `None`.
#[derive(Clone, Debug)]
pub struct Flow {
    pub id: u64,
    pub direction: Direction,
    pub opened: SystemTime,
    pub client: SocketAddr,
    /// What the client asked for.
    pub original_dst: Option<SocketAddr>,
    /// What it got: the endpoint that was dialled.
    pub chosen_dst: Option<SocketAddr>,
    pub service: Option<ServiceName>,
    pub source_identity: Option<SpiffeId>,
    pub destination_identity: Option<SpiffeId>,
    pub transport: Transport,
    pub tls: Option<TlsFacts>,
    /// From accept to the upstream being usable.
    pub connect_time: Option<Duration>,
    /// The TLS handshake alone, when this flow paid for one.
    pub handshake_time: Option<Duration>,
    pub bytes: Arc<Bytes>,
    /// What was decided on its way.
    pub decisions: Decisions,
    /// Set once, at the end.
    pub closed: Option<(SystemTime, Outcome)>,
}

impl Flow {
    /// A flow that has just begun; its id is given when it is recorded.
    pub fn new(direction: Direction, client: SocketAddr, opened: SystemTime) -> Self {
        Self {
            id: 0,
            direction,
            opened,
            client,
            original_dst: None,
            chosen_dst: None,
            service: None,
            source_identity: None,
            destination_identity: None,
            transport: Transport::Plain,
            tls: None,
            connect_time: None,
            handshake_time: None,
            bytes: Arc::default(),
            decisions: Decisions::default(),
            closed: None,
        }
    }

    /// Remembers a decision that falls now.
    pub fn decided(&mut self, now: SystemTime, what: Decided) {
        // The clock may have been set back meanwhile.
        let after = now.duration_since(self.opened).unwrap_or_default();
        self.decisions.push(Decision { after, what });
    }
}
