//! Who stands behind a service, how many connections are open to them, and which dials have failed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::decision::Failure;
use super::workload::Workload;

/// One place where a service is served.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub workload: Arc<Workload>,
    /// Service port to target port, as this endpoint maps it.
    pub ports: BTreeMap<u16, u16>,
    /// Connections open to it from this proxy, over all shards. It outlives the snapshot: the next one carries
    /// the same counter on for the same workload.
    pub load: Arc<Load>,
}

/// Open connections towards one workload, and its addresses that take none.
#[derive(Debug, Default)]
pub struct Load {
    open: AtomicU32,
    /// Whether there are any, so that a dial that succeeds takes no lock.
    has_failures: AtomicBool,
    failures: Mutex<BTreeMap<SocketAddr, DialFailures>>,
}

/// The dials of one address that have failed since the last one that did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialFailures {
    pub count: u32,
    /// Of the last one.
    pub at: SystemTime,
    pub last: Failure,
}

/// Addresses of one workload whose failures are remembered: a service has few ports.
const MOST_FAILING: usize = 16;

/// Counts one open connection for as long as it lives.
#[derive(Debug)]
pub struct LoadGuard(Arc<Load>);

impl Load {
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    pub fn enter(self: &Arc<Self>) -> LoadGuard {
        self.open.fetch_add(1, Relaxed);
        LoadGuard(self.clone())
    }

    /// Nobody took a connection to this address.
    pub fn failed(&self, address: SocketAddr, last: Failure, at: SystemTime) {
        let mut failures = self.failures();
        if failures.len() >= MOST_FAILING && !failures.contains_key(&address) {
            return;
        }
        let count = failures.get(&address).map_or(0, |before| before.count);
        let count = count.saturating_add(1);
        failures.insert(address, DialFailures { count, at, last });
        self.has_failures.store(true, Relaxed);
    }

    /// A connection to this address is up.
    pub fn answered(&self, address: SocketAddr) {
        if self.has_failures.load(Relaxed) {
            let mut failures = self.failures();
            failures.remove(&address);
            self.has_failures.store(!failures.is_empty(), Relaxed);
        }
    }

    /// What has failed at this address since it took a connection.
    pub fn failures_of(&self, address: SocketAddr) -> Option<DialFailures> {
        self.failures().get(&address).cloned()
    }

    /// A record stays whole, whoever panicked while holding the lock.
    fn failures(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, DialFailures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cause, Outcome, Party};

    #[test]
    fn an_address_fails_until_it_takes_a_connection_and_others_are_not_blamed() {
        let (load, at) = (Load::default(), SystemTime::UNIX_EPOCH);
        let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let refused = Failure::new(Outcome::new(Party::Upstream, Cause::ConnectionRefused), "503");
        load.failed(address(80), refused.clone(), at);
        load.failed(address(80), refused.clone(), at);
        load.failed(address(81), refused.clone(), at);
        assert_eq!(load.failures_of(address(80)).unwrap().count, 2);
        assert_eq!(load.failures_of(address(82)), None);
        load.answered(address(80));
        assert_eq!(load.failures_of(address(80)), None);
        assert_eq!(load.failures_of(address(81)).unwrap().count, 1);
        for port in 100..1000 {
            load.failed(address(port), refused.clone(), at);
        }
        assert_eq!(load.failures().len(), MOST_FAILING);
        load.failed(address(81), refused, at);
        assert_eq!(
            load.failures_of(address(81)).unwrap().count,
            2,
            "known ones are counted on"
        );
    }
}
