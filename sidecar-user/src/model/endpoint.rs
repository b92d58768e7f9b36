//! Who stands behind a service, and how many connections are open to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

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

/// Open connections towards one workload.
#[derive(Debug, Default)]
pub struct Load(AtomicU32);

/// Counts one open connection for as long as it lives.
#[derive(Debug)]
pub struct LoadGuard(Arc<Load>);

impl Load {
    pub fn open(&self) -> u32 {
        self.0.load(Relaxed)
    }

    pub fn enter(self: &Arc<Self>) -> LoadGuard {
        self.0.fetch_add(1, Relaxed);
        LoadGuard(self.clone())
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}
