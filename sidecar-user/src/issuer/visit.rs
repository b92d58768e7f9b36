//! One connection to the certificate service, from its first byte to its end: what it has proved so far, and when it has
//! to go. Reads and writes nothing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::stats::{Ended, Stats};
use super::tenants::{self, Tenant, Tenants};
use crate::admission::{self, Admission, Guest};

/// What connections may hold, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) unproved: admission::Limits,
    pub(super) proved: tenants::Limits,
    /// From the first SYN to the first request with a token.
    pub(super) until_proved: Duration,
    /// One that said nothing for so long is gone.
    pub(super) silence: Duration,
}

/// Descriptors that are not for connections: the state directory, the status endpoint, the log, the runtimes.
const RESERVED: usize = 128;

impl Limits {
    /// For a process that may have so many descriptors.
    pub(super) fn for_descriptors(limit: usize) -> Self {
        let usable = limit.saturating_sub(RESERVED).max(8);
        // Evicted connections hold theirs until their tasks have seen it, hence less than all.
        let places = (usable / 3).min(1024);
        Self {
            unproved: admission::Limits {
                places,
                // A NAT gateway is one source with many sidecars behind it.
                per_source: (places / 4).max(2),
                first_byte: Duration::from_secs(5),
                first_byte_under_pressure: Duration::from_secs(2),
            },
            proved: tenants::Limits {
                // Every replica of a workload has the same identity; they ask seldom, and shortly.
                per_identity: (usable / 24).clamp(2, 64),
                all: (usable / 3).min(4096),
            },
            // A handshake and a request take milliseconds, and seconds over a bad link.
            until_proved: Duration::from_secs(10),
            // A client pings every 30 s (`wire.md` 2) or talks; one that was silent for two of them is gone.
            silence: Duration::from_secs(75),
        }
    }
}

/// The two kinds of places, and what is counted at the door.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) limits: Limits,
    pub(super) admission: Admission,
    pub(super) tenants: Tenants<Visit>,
    pub(super) stats: Stats,
}

#[derive(Debug)]
pub(super) struct Visit {
    pub(super) peer: SocketAddr,
    door: Arc<Door>,
    guest: Guest,
    deadline: Instant,
    /// Its number among those that have proved an identity.
    tenant: OnceLock<u64>,
    proved: Notify,
    crowded_out: Notify,
    requests: AtomicUsize,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Visit>);

impl Door {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            admission: Admission::new(limits.unproved),
            tenants: Tenants::new(limits.proved),
            stats: Stats::default(),
        })
    }

    pub(super) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Arc<Visit> {
        Arc::new(Visit {
            peer,
            guest: self.admission.enter(Some(peer.ip())),
            deadline: Instant::now() + self.limits.until_proved,
            door: self.clone(),
            tenant: OnceLock::new(),
            proved: Notify::new(),
            crowded_out: Notify::new(),
            requests: AtomicUsize::new(0),
        })
    }
}

impl Visit {
    pub(super) fn begin_request(self: &Arc<Self>) -> UnderWay {
        self.requests.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// A token was good: it stays as one of its owner's connections.
    pub(super) fn prove(self: &Arc<Self>, owner: &Arc<str>) {
        if self.tenant.get().is_some() || !self.guest.proved() {
            return;
        }
        let (number, displaced) = self.door.tenants.enter(owner, self);
        let _ = self.tenant.set(number);
        if let Some(displaced) = displaced {
            displaced.crowded_out.notify_one();
        }
        self.proved.notify_one();
    }

    /// How long its first byte may take.
    pub(super) fn first_byte_limit(&self) -> Duration {
        self.guest.first_byte_limit()
    }

    /// Completes when it has to go.
    pub(super) async fn over(self: Arc<Self>) {
        tokio::select! {
            biased;
            // Counted by the admission.
            () = self.guest.evicted() => return,
            () = self.proved.notified() => {}
            () = sleep_until(self.deadline) => return self.door.stats.ended(Ended::Unproved),
        }
        self.crowded_out.notified().await;
        self.door.stats.ended(Ended::Crowded);
    }
}

impl Visit {
    /// To be called when the connection has ended: the table of tenants holds it until then.
    pub(super) fn end(&self) {
        if let Some(number) = self.tenant.get() {
            self.door.tenants.leave(*number);
        }
    }
}

impl Tenant for Visit {
    fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Arc<str> {
        "a".into()
    }

    fn peer() -> SocketAddr {
        "10.0.0.1:1".parse().unwrap()
    }

    fn ended(door: &Door, reason: &str) -> u64 {
        let counts = door.stats.counts();
        counts.ended.iter().find(|(name, _)| *name == reason).unwrap().1
    }

    #[tokio::test(start_paused = true)]
    async fn who_proves_nothing_has_ten_seconds() {
        let door = Door::new(Limits::for_descriptors(1024));
        let begin = Instant::now();
        door.enter(peer()).over().await;
        assert_eq!(begin.elapsed().as_secs(), 10);
        assert_eq!(ended(&door, "unproved"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_proved_an_identity_stays_until_its_place_is_needed() {
        let door = Door::new(Limits::for_descriptors(128 + 48));
        assert_eq!(door.limits.proved.per_identity, 2);
        let visits: Vec<_> = (0..2).map(|_| door.enter(peer())).collect();
        visits.iter().for_each(|visit| visit.prove(&id()));
        assert_eq!((door.admission.counts().waiting, door.tenants.len()), (0, 2));
        let mut first = Box::pin(visits[0].clone().over());
        let hour = tokio::time::sleep(Duration::from_secs(3600));
        tokio::select! {
            () = &mut first => panic!("nobody needs its place"),
            () = hour => {}
        }
        door.enter(peer()).prove(&id());
        first.await;
        assert_eq!(ended(&door, "identity_quota"), 1);
        visits[1].end();
        assert_eq!(door.tenants.len(), 1);
    }

    #[test]
    fn few_descriptors_leave_some_for_the_rest_of_the_process() {
        for limit in [256, 1024, 1 << 20] {
            let limits = Limits::for_descriptors(limit);
            assert!(
                limits.unproved.places + limits.proved.all <= limit - RESERVED,
                "{limits:?}"
            );
            assert!(limits.unproved.per_source < limits.unproved.places, "{limits:?}");
        }
    }
}
