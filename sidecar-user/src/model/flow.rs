//! A flow: the story of one intercepted connection, and how it ended.
//!
//! Facts only; `observe/` counts and shows them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::bottleneck::Bottleneck;
use super::decision::{Decided, Decision, Decisions};
use super::identity::SpiffeId;
use super::outcome::{Outcome, Transport};
use super::service::ServiceName;
use super::tcp::{LegFacts, Legs};

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
    /// How long there were bytes that the client did not take.
    pub to_client: Stalled,
    /// The same of the upstream.
    pub to_upstream: Stalled,
}

/// How long something was held up, all in all and until now. A flow lives on one shard, which is its only writer.
#[derive(Debug, Default)]
pub struct Stalled {
    /// Nanoseconds, without the time since `since`.
    total: AtomicU64,
    /// Since when, in nanoseconds after [`BEGIN`]; 0: it is not.
    since: AtomicU64,
}

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Stalled {
    /// Asks for the time only where something changes.
    pub fn set(&self, stalled: bool, now: impl FnOnce() -> Instant) {
        let since = self.since.load(Relaxed);
        if stalled == (since != 0) {
            return;
        }
        let now = after_begin(now());
        if stalled {
            self.since.store(now, Relaxed);
        } else {
            let total = self.total.load(Relaxed);
            self.total.store(total + now.saturating_sub(since), Relaxed);
            self.since.store(0, Relaxed);
        }
    }

    pub fn read(&self, now: Instant) -> Duration {
        let since = self.since.load(Relaxed);
        let going_on = if since == 0 {
            0
        } else {
            after_begin(now).saturating_sub(since)
        };
        Duration::from_nanos(self.total.load(Relaxed) + going_on)
    }
}

/// Never 0.
fn after_begin(now: Instant) -> u64 {
    let nanos = now.saturating_duration_since(*BEGIN).as_nanos();
    u64::try_from(nanos).unwrap_or(u64::MAX).max(1)
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
    /// What the kernel said of the connections that it is made of: every few seconds, and at its end.
    pub legs: Option<Box<Legs>>,
    /// What held it up most, if anything did.
    pub bottleneck: Option<Bottleneck>,
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
            legs: None,
            bottleneck: None,
            closed: None,
        }
    }

    /// Remembers a decision that falls now.
    pub fn decided(&mut self, now: SystemTime, what: Decided) {
        // The clock may have been set back meanwhile.
        let after = now.duration_since(self.opened).unwrap_or_default();
        self.decisions.push(Decision { after, what });
    }

    /// Bytes can pass. The kernel tells of connections that were left alone once they are there, and of inbound ones not
    /// how long that took.
    pub fn is_usable(&self) -> bool {
        self.connect_time.is_some() || (self.transport == Transport::LeftAlone && self.chosen_dst.is_some())
    }

    /// The connection that leaves the pod.
    pub fn peer_leg(&self) -> Option<LegFacts> {
        let legs = self.legs.as_ref()?;
        match self.direction {
            Direction::Inbound => legs.client,
            Direction::Outbound => legs.upstream,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_held_up_counts_while_it_goes_on_and_only_then() {
        let (stalled, start) = (Stalled::default(), Instant::now());
        let at = |n| start + Duration::from_secs(n);
        assert_eq!(stalled.read(at(5)), Duration::ZERO);
        stalled.set(true, || at(10));
        stalled.set(true, || unreachable!("nothing has changed"));
        assert_eq!(stalled.read(at(12)), Duration::from_secs(2));
        stalled.set(false, || at(13));
        assert_eq!(stalled.read(at(99)), Duration::from_secs(3));
        stalled.set(true, || at(100));
        assert_eq!(stalled.read(at(101)), Duration::from_secs(4));
    }
}
