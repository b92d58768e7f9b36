//! The flows of connections that never come to this proxy, as the kernel programs tell of them. Those that last are asked about
//! every few seconds, by their two ends.
//!
//! Changes nothing about them: a flow that is closed here because its end was not told is a record that ends.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::readings::{AT_ONCE, EVERY};
use crate::datapath::LeftAloneEvent;
use crate::host::SocketsByEnds;
use crate::model::{Cause, Direction, Flow, LegFacts, Legs, Outcome, Party, Snapshot, SpiffeId, TcpFacts};
use crate::observe::{OpenFlow, ShardObserver};

/// Open ones of a shard. There is no flow of more until they end.
const MOST: usize = 1024;

/// Of one shard.
pub(super) struct LeftAlone {
    /// Of the pod, which is the source of what leaves it.
    id: SpiffeId,
    /// Names the services that they go to.
    world: watch::Receiver<Arc<Snapshot>>,
    observe: ShardObserver,
    open: RefCell<HashMap<Ends, Entry>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    own: SocketAddr,
    other: SocketAddr,
}

struct Entry {
    flow: OpenFlow,
    device: u32,
    since: Instant,
    /// It was not there when it was asked for. The news of its end may be on the way.
    missing: bool,
}

impl LeftAlone {
    pub(super) fn new(id: SpiffeId, world: watch::Receiver<Arc<Snapshot>>, observe: ShardObserver) -> Self {
        Self {
            id,
            world,
            observe,
            open: RefCell::default(),
        }
    }

    pub(super) fn event(&self, event: LeftAloneEvent, now: Instant) {
        match event {
            LeftAloneEvent::Opened(flow, device) => self.opened(self.named(flow), device, now),
            LeftAloneEvent::Ended(flow, outcome) => self.ended(self.named(flow), outcome),
        }
    }

    fn named(&self, mut flow: Flow) -> Flow {
        if flow.direction == Direction::Outbound {
            flow.source_identity = Some(self.id.clone());
            let world = self.world.borrow();
            let dialled = flow.original_dst.and_then(|dst| world.service_at(dst));
            flow.service = dialled.map(|(service, _)| service.name.clone());
        }
        flow
    }

    fn opened(&self, flow: Flow, device: u32, since: Instant) {
        let Some(ends) = ends(&flow) else { return };
        let mut open = self.open.borrow_mut();
        if let Some(earlier) = open.remove(&ends) {
            earlier.lose();
        }
        if open.len() == MOST {
            return;
        }
        let flow = self.observe.open(flow);
        // It is usable from its beginning on.
        flow.update(|_| {});
        let entry = Entry {
            flow,
            device,
            since,
            missing: false,
        };
        open.insert(ends, entry);
    }

    fn ended(&self, flow: Flow, outcome: Outcome) {
        let entry = ends(&flow).and_then(|ends| self.open.borrow_mut().remove(&ends));
        match entry {
            Some(entry) => {
                entry.moved(flow.bytes.sent(), flow.bytes.received());
                entry.flow.update(|open| open.legs = flow.legs);
                entry.flow.close(outcome);
            }
            // Told of for the first time.
            None => self.observe.open(flow).close(outcome),
        }
    }

    /// Never ends.
    pub(super) async fn follow(self: Rc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            let due = self.due(Instant::now());
            if due.is_empty() {
                continue;
            }
            let mut sockets = match SocketsByEnds::open() {
                Ok(sockets) => sockets,
                Err(error) => {
                    tracing::debug!("connections that were left alone are not asked about: {error}");
                    continue;
                }
            };
            for some in due.chunks(AT_ONCE) {
                for (ends, device) in some {
                    if let Ok(facts) = sockets.tcp_facts(ends.own, ends.other, *device) {
                        self.read(*ends, facts);
                    }
                }
                tokio::task::yield_now().await;
            }
        }
    }

    fn due(&self, now: Instant) -> Vec<(Ends, u32)> {
        let open = self.open.borrow();
        let is_due = |entry: &Entry| now.saturating_duration_since(entry.since) >= EVERY;
        let due = open.iter().filter(|(_, entry)| is_due(entry));
        due.map(|(ends, entry)| (*ends, entry.device)).collect()
    }

    /// What the kernel has said; `None`: there is no such connection.
    fn read(&self, ends: Ends, facts: Option<TcpFacts>) {
        let mut open = self.open.borrow_mut();
        let Some(entry) = open.get_mut(&ends) else { return };
        match facts {
            Some(facts) => entry.update(facts),
            None if entry.missing => {
                if let Some(entry) = open.remove(&ends) {
                    entry.lose();
                }
            }
            None => entry.missing = true,
        }
    }
}

impl Entry {
    fn update(&mut self, facts: TcpFacts) {
        self.missing = false;
        let leg = Some(LegFacts {
            tcp: facts,
            is_tunnel: false,
        });
        let legs = match self.flow.direction() {
            Direction::Outbound => {
                self.moved(facts.bytes_acked, facts.bytes_received);
                Legs {
                    client: None,
                    upstream: leg,
                }
            }
            Direction::Inbound => {
                self.moved(facts.bytes_received, facts.bytes_acked);
                Legs {
                    client: leg,
                    upstream: None,
                }
            }
        };
        self.flow.update(|flow| flow.legs = Some(Box::new(legs)));
    }

    /// All in all. The counters never go back.
    fn moved(&self, sent: u64, received: u64) {
        let bytes = self.flow.bytes();
        bytes.add_sent(sent.saturating_sub(bytes.sent()));
        bytes.add_received(received.saturating_sub(bytes.received()));
    }

    /// It has ended, and the news of that found no room in the ring.
    fn lose(self) {
        self.flow.close(Outcome::new(Party::Us, Cause::LimitReached));
    }
}

fn ends(flow: &Flow) -> Option<Ends> {
    let destination = flow.original_dst?;
    Some(match flow.direction {
        Direction::Outbound => Ends {
            own: flow.client,
            other: destination,
        },
        Direction::Inbound => Ends {
            own: destination,
            other: flow.client,
        },
    })
}

#[cfg(test)]
mod tests;
