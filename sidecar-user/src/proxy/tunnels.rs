//! The inbound tunnels of a shard: how many one identity may have, and which of them are told to go. Serves none.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::Notify;

use super::live::TunnelId;
use crate::identity::Svid;
use crate::model::SpiffeId;
use crate::transport::hbone::server::Streams;
use crate::transport::tls::Peer;

/// What a tunnel costs: a TLS session, the tables and read buffers of HTTP/2, two tasks. The identities' quota is as many
/// tunnels as the buffers' budget would pay for.
const COST: usize = 64 * 1024;
/// A peer opens up to nine tunnels from each of its shards, and many peers may have one identity.
const LEAST: usize = 64;

/// Why a tunnel takes no new connections, as metrics have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Its identity has more tunnels than its quota, and this one carried nothing.
    Quota,
    /// Its chain leads to no root that is trusted now.
    Untrusted,
}

impl Farewell {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Quota => "identity_quota",
            Self::Untrusted => "untrusted",
        }
    }
}

pub(super) struct Tunnels {
    quota: usize,
    /// Oldest first.
    by_identity: RefCell<HashMap<SpiffeId, Vec<Rc<Entry>>>>,
}

struct Entry {
    id: TunnelId,
    peer: Peer,
    streams: Streams,
    farewell: Cell<Option<Farewell>>,
    told: Notify,
}

/// One tunnel among them, for as long as it lives.
pub(super) struct Entered {
    tunnels: Rc<Tunnels>,
    entry: Rc<Entry>,
}

impl Tunnels {
    /// For one of so many shards, with so much memory for buffers.
    pub(super) fn new(buffer_memory: usize, shards: usize) -> Self {
        Self {
            quota: (buffer_memory / COST / shards.max(1)).max(LEAST),
            by_identity: RefCell::default(),
        }
    }

    /// Beyond the quota the identity's oldest idle tunnel is told to go. Where all are busy there may be twice as many,
    /// and then no more: `None`.
    pub(super) fn enter(self: &Rc<Self>, id: TunnelId, peer: Peer, streams: Streams) -> Option<Entered> {
        let mut by_identity = self.by_identity.borrow_mut();
        let own = by_identity.entry(peer.id.clone()).or_default();
        if own.len() >= self.quota {
            if let Some(idle) = own
                .iter()
                .find(|e| e.farewell.get().is_none() && e.streams.open() == 0)
            {
                idle.tell(Farewell::Quota);
            } else if own.len() >= self.quota * 2 {
                return None;
            }
        }
        let entry = Rc::new(Entry {
            id,
            peer,
            streams,
            farewell: Cell::new(None),
            told: Notify::new(),
        });
        own.push(entry.clone());
        Some(Entered {
            tunnels: self.clone(),
            entry,
        })
    }

    /// Tells those to go whose peers prove nothing any more, and names them.
    pub(super) fn distrust(&self, svid: &Svid) -> Vec<TunnelId> {
        let by_identity = self.by_identity.borrow();
        let untrusted = by_identity.values().flatten().filter(|entry| {
            entry.farewell.get() != Some(Farewell::Untrusted) && !entry.peer.is_trusted_by(svid)
        });
        untrusted
            .map(|entry| {
                entry.tell(Farewell::Untrusted);
                entry.id
            })
            .collect()
    }
}

impl Entry {
    fn tell(&self, farewell: Farewell) {
        self.farewell.set(Some(farewell));
        self.told.notify_one();
    }
}

impl Entered {
    /// Completes when the tunnel is to take no new connections.
    pub(super) fn told(&self) -> impl Future<Output = ()> + use<> {
        let entry = self.entry.clone();
        async move { entry.told.notified().await }
    }

    pub(super) fn farewell(&self) -> Option<Farewell> {
        self.entry.farewell.get()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut by_identity = self.tunnels.by_identity.borrow_mut();
        if let Some(own) = by_identity.get_mut(&self.entry.peer.id) {
            own.retain(|entry| !Rc::ptr_eq(entry, &self.entry));
            if own.is_empty() {
                by_identity.remove(&self.entry.peer.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::live::Live;

    struct World {
        live: Rc<Live>,
        tunnels: Rc<Tunnels>,
    }

    impl World {
        fn new() -> Self {
            Self {
                live: Rc::default(),
                tunnels: Rc::new(Tunnels::new(0, 1)),
            }
        }

        fn enter(&self, account: &str, streams: usize) -> Option<Entered> {
            let id = SpiffeId::new("td.test", "demo", account).unwrap();
            self.tunnels.enter(
                self.live.next_tunnel(),
                Peer::for_tests(id),
                Streams::for_tests(streams),
            )
        }
    }

    #[test]
    fn beyond_the_quota_the_oldest_idle_tunnel_of_the_identity_goes() {
        let world = World::new();
        let other = world.enter("other", 0).unwrap();
        let busy = world.enter("a", 1).unwrap();
        let idle: Vec<_> = (1..LEAST).map(|_| world.enter("a", 0).unwrap()).collect();
        assert_eq!(idle[0].farewell(), None, "the quota is reached, not exceeded");
        let _next = world.enter("a", 0).unwrap();
        assert_eq!(idle[0].farewell(), Some(Farewell::Quota));
        assert_eq!(
            (busy.farewell(), other.farewell(), idle[1].farewell()),
            (None, None, None)
        );
        let _after = world.enter("a", 0).unwrap();
        assert_eq!(
            idle[1].farewell(),
            Some(Farewell::Quota),
            "not the same one again"
        );
    }

    #[test]
    fn busy_tunnels_are_left_alone_up_to_twice_the_quota() {
        let world = World::new();
        let mut busy: Vec<_> = (0..2 * LEAST).map(|_| world.enter("a", 1).unwrap()).collect();
        assert!(world.enter("a", 1).is_none());
        assert!(
            world.enter("b", 1).is_some(),
            "another identity has its own quota"
        );
        assert!(busy.iter().all(|tunnel| tunnel.farewell().is_none()));
        busy.pop();
        assert!(world.enter("a", 1).is_some());
    }
}
