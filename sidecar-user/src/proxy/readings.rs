//! What the kernel says of a shard's connections while they are relayed: asked when one ends, and every few seconds of those
//! that last, by one timer for all of the shard.
//!
//! One TCP_INFO a leg. The kernel programs could tell the same of these sockets, for a callback at every change of state and
//! a record for each, and not what waits in their queues. Moves no bytes, and judges by `model::bottleneck` alone.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::host::tcp_facts;
use crate::model::bottleneck::{Evidence, Sending};
use crate::model::flow::Bytes;
use crate::model::{Direction, LegFacts, LegSocket, Legs, Queue};
use crate::observe::{FlowHandle, OpenFlow};
use crate::relay::Port;

/// How often a connection that lasts is asked about, and how old it is before that.
pub(super) const EVERY: Duration = Duration::from_secs(5);
/// Connections asked about before others of the shard have their turn: some 50 µs.
pub(super) const AT_ONCE: usize = 32;
/// What a tunnel said so long ago is good enough for where a flow begins, and for where it ends.
const RECENT: Duration = Duration::from_secs(1);
const JUST_NOW: Duration = Duration::from_millis(10);

/// The connections of a shard that are being relayed.
#[derive(Default)]
pub(super) struct Readings {
    joined: RefCell<Slab<Entry>>,
}

struct Entry {
    flow: FlowHandle,
    direction: Direction,
    bytes: Arc<Bytes>,
    client: Option<LegSocket>,
    upstream: Option<LegSocket>,
    since: Instant,
    /// What the tunnel to the peer had done before.
    before: Option<Queue>,
}

/// One of them, while its sockets are open.
pub(super) struct Reading<'r> {
    readings: &'r Readings,
    key: usize,
}

impl Readings {
    pub(super) fn begin(&self, flow: &OpenFlow, client: &impl Port, upstream: &impl Port) -> Reading<'_> {
        let (client, upstream) = (client.socket(), upstream.socket());
        let since = Instant::now();
        let direction = flow.direction();
        let peer = match direction {
            Direction::Inbound => &client,
            Direction::Outbound => &upstream,
        };
        let before = match peer {
            Some(LegSocket::Tunnel(socket)) => socket
                .facts(since, RECENT, tcp_facts)
                .and_then(|facts| facts.queue),
            // It began with the flow.
            Some(LegSocket::Own(_)) | None => None,
        };
        let key = self.joined.borrow_mut().insert(Entry {
            flow: flow.handle(),
            direction,
            bytes: flow.bytes(),
            client,
            upstream,
            since,
            before,
        });
        Reading { readings: self, key }
    }

    /// Never ends.
    pub(super) async fn follow(self: Rc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            let due = self.due(Instant::now());
            for some in due.chunks(AT_ONCE) {
                for key in some {
                    // It may have ended, and another one have its number: that one is read early.
                    if let Some(entry) = self.joined.borrow().get(*key) {
                        entry.read(RECENT);
                    }
                }
                tokio::task::yield_now().await;
            }
        }
    }

    fn due(&self, now: Instant) -> Vec<usize> {
        let joined = self.joined.borrow();
        let due = joined
            .iter()
            .filter(|(_, entry)| now.saturating_duration_since(entry.since) >= EVERY);
        due.map(|(key, _)| key).collect()
    }
}

impl Reading<'_> {
    /// The relay has ended, and the sockets are still open.
    pub(super) fn end(self) {
        if let Some(entry) = self.readings.joined.borrow().get(self.key) {
            entry.read(JUST_NOW);
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.readings.joined.borrow_mut().remove(self.key);
    }
}

impl Entry {
    fn peer(&self) -> Option<&LegSocket> {
        match self.direction {
            Direction::Inbound => self.client.as_ref(),
            Direction::Outbound => self.upstream.as_ref(),
        }
    }

    fn read(&self, age: Duration) {
        let now = Instant::now();
        let leg = |socket: &Option<LegSocket>| {
            let (tcp, is_tunnel) = match socket.as_ref()? {
                LegSocket::Own(fd) => (tcp_facts(*fd)?, false),
                LegSocket::Tunnel(socket) => (socket.facts(now, age, tcp_facts)?, true),
            };
            Some(LegFacts { tcp, is_tunnel })
        };
        let legs = Legs {
            client: leg(&self.client),
            upstream: leg(&self.upstream),
        };
        let peer = match self.direction {
            Direction::Inbound => legs.client,
            Direction::Outbound => legs.upstream,
        };
        // Unacknowledged, the question itself may be lost on the way.
        let is_unanswered = |leg: LegFacts| {
            let is_asked = |socket: &LegSocket| matches!(socket, LegSocket::Tunnel(s) if s.is_unanswered());
            leg.tcp.unacked == 0 && self.peer().is_some_and(is_asked)
        };
        let sending =
            peer.map(|leg| Sending::since(self.before, leg.tcp.queue, (leg.is_tunnel, is_unanswered(leg))));
        let (to_client, to_upstream) = (self.bytes.to_client.read(now), self.bytes.to_upstream.read(now));
        let (to_application, to_peer) = match self.direction {
            Direction::Outbound => (to_client, to_upstream),
            Direction::Inbound => (to_upstream, to_client),
        };
        let evidence = Evidence {
            to_application,
            to_peer,
            peer: sending.unwrap_or_default(),
        };
        self.flow.update(|flow| {
            flow.legs = Some(Box::new(legs));
            flow.bottleneck = evidence.bottleneck();
        });
    }
}
