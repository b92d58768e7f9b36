//! The handles: [`Observer`] for the role, [`ShardObserver`] for each shard, [`OpenFlow`] for each walk.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use prometheus_client::registry::Registry;

use super::exposition::{self, Format};
use super::figures::{Figure, Figures};
use super::filter::Filter;
use super::labels::{LabelTable, Labels};
use super::lock;
use super::meters::Meters;
use super::readiness::Readiness;
use super::ring::Ring;
use super::shard::{Place, Shard, Shared, Tally};
use super::watch::{Watchers, Watching};
use crate::model::flow::Bytes;
use crate::model::{Cause, Flow, Outcome, Party};

/// Bounds on what is kept; the defaults are those of `docs/observability.md`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Closed flows remembered for `/flows`, over all shards.
    pub closed_flows: usize,
    /// Label sets of connection metrics; later ones are counted under `overflow`.
    pub label_sets: usize,
    /// Streams of `/flows?watch=true` at the same time.
    pub watchers: usize,
    /// Events waiting for one watcher before it is cut off.
    pub watch_queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            closed_flows: 1000,
            label_sets: 1000,
            watchers: 16,
            watch_queue: 1024,
        }
    }
}

/// The process's one observer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Observer {
    shared: Arc<Shared>,
    shards: Arc<Mutex<Vec<Arc<Shard>>>>,
    registry: Arc<Mutex<Registry>>,
    meters: Arc<Meters>,
    readiness: Readiness,
}

/// One shard's door to the observer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ShardObserver {
    shard: Arc<Shard>,
}

/// The record of a flow that runs. Its walk owns it; dropping it without [`OpenFlow::close`] records the flow as
/// ended by us, in a shutdown or by a panic.
#[derive(Debug)]
pub struct OpenFlow {
    shard: Arc<Shard>,
    bytes: Arc<Bytes>,
    place: Place,
    recorded: bool,
}

impl Observer {
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// For a process that has no data path: the process's own figures, its conditions, and what [`Observer::figures`]
    /// adds.
    pub fn plain() -> Self {
        let observer = Self::new();
        Self {
            registry: Arc::new(Mutex::new(registry_of_any_process(&observer.readiness))),
            ..observer
        }
    }

    pub fn with_limits(limits: Limits) -> Self {
        let shared = Shared {
            next_id: AtomicU64::new(1),
            labels: LabelTable::new(limits.label_sets),
            ring: Ring::new(limits.closed_flows),
            watchers: Watchers::new(limits.watchers, limits.watch_queue),
        };
        let readiness = Readiness::new();
        let mut registry = registry_of_any_process(&readiness);
        let meters = Meters::register(&mut registry);
        let observer = Self {
            shared: Arc::new(shared),
            shards: Arc::default(),
            registry: Arc::new(Mutex::new(registry)),
            meters: Arc::new(meters),
            readiness,
        };
        let connections = exposition::Connections {
            shared: observer.shared.clone(),
            shards: observer.shards.clone(),
        };
        lock(&observer.registry).register_collector(Box::new(connections));
        observer
    }

    /// The door of shard `n`, counted from 0; the same shard each time it is asked for.
    pub fn shard(&self, n: usize) -> ShardObserver {
        let mut shards = lock(&self.shards);
        while shards.len() <= n {
            shards.push(Arc::new(Shard::new(self.shared.clone())));
        }
        ShardObserver {
            shard: shards[n].clone(),
        }
    }

    /// Counters and gauges that roles set.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// The conditions behind `/startupz` and `/readyz`.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Shows the kernel side's counters, read at each scrape, as `outrigger_kernel_events_total{event="…"}`.
    /// To be called once. The names are static, so their number is bounded.
    pub fn kernel_counters(&self, read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static) {
        let counters = super::meters::KernelCounters::new(read);
        lock(&self.registry).register_collector(Box::new(counters));
    }

    /// Shows what a role counts by itself, read at each scrape. To be called once for each set of names.
    pub fn figures(&self, read: impl Fn() -> Vec<Figure> + Send + Sync + 'static) {
        lock(&self.registry).register_collector(Box::new(Figures::new(read)));
    }

    pub(super) fn exposition(&self, format: Format) -> Result<String, std::fmt::Error> {
        exposition::render(&lock(&self.registry), format)
    }

    /// Open flows that pass, oldest first, at most the `limit` newest, and how many passed in all. `settled` leaves
    /// out those whose upstream is not usable yet.
    pub(super) fn open_flows(&self, filter: &Filter, limit: usize, settled: bool) -> (Vec<Flow>, usize) {
        let shards = lock(&self.shards).clone();
        let mut ids = Vec::new();
        for shard in &shards {
            shard.visit(|flow, is_settled| {
                if (is_settled || !settled) && filter.passes(flow) {
                    ids.push(flow.id);
                }
            });
        }
        let total = ids.len();
        ids.sort_unstable();
        let Some(first) = ids.get(total - total.min(limit)).copied() else {
            return (Vec::new(), total);
        };
        // Two passes, so that only what is asked for is copied.
        let mut flows = Vec::with_capacity(total.min(limit));
        for shard in &shards {
            shard.visit(|flow, is_settled| {
                if flow.id >= first && (is_settled || !settled) && filter.passes(flow) {
                    flows.push(flow.clone());
                }
            });
        }
        flows.sort_unstable_by_key(|flow| flow.id);
        flows.truncate(limit);
        (flows, total)
    }

    pub(super) fn closed_flows(&self, filter: &Filter, limit: usize) -> (Vec<Flow>, usize) {
        self.shared.ring.newest(limit, |flow| filter.passes(flow))
    }

    pub(super) fn watch(&self) -> Option<Watching> {
        Watching::start(self.shared.clone())
    }

    pub(super) fn watch_queue(&self) -> usize {
        self.shared.watchers.queue_len()
    }
}

/// What every process shows, whatever it does.
fn registry_of_any_process(readiness: &Readiness) -> Registry {
    let mut registry = Registry::default();
    super::meters::register_build(&mut registry);
    registry.register_collector(Box::new(readiness.clone()));
    registry.register_collector(Box::new(super::process::Process::new()));
    registry
}

impl Default for Observer {
    fn default() -> Self {
        Self::new()
    }
}

impl ShardObserver {
    /// Begins the record of a flow. Its `id` is given here; whatever the caller wrote there is lost.
    pub fn open(&self, mut flow: Flow) -> OpenFlow {
        flow.id = self.shard.shared().next_id.fetch_add(1, Relaxed);
        let bytes = flow.bytes.clone();
        let place = self.shard.open(Box::new(flow));
        OpenFlow {
            shard: self.shard.clone(),
            bytes,
            place,
            recorded: false,
        }
    }
}

impl OpenFlow {
    /// Writes down what the walk has learned. The update that sets `connect_time` says that the upstream is usable:
    /// it settles the labels of the flow's metrics, and counts the flow as opened, so identities, service,
    /// transport and `handshake_time` belong into it or before it. `bytes` must stay the same.
    pub fn update(&self, change: impl FnOnce(&mut Flow)) {
        self.shard.update(self.place, change);
    }

    /// The counters that the relay writes.
    pub fn bytes(&self) -> Arc<Bytes> {
        self.bytes.clone()
    }

    pub fn close(mut self, outcome: Outcome) {
        self.record(outcome);
    }

    fn record(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.recorded, true) {
            self.shard.close(self.place, SystemTime::now(), outcome);
        }
    }
}

impl Drop for OpenFlow {
    fn drop(&mut self) {
        // Lost by unwinding, or by a shard that ends.
        let cause = if std::thread::panicking() {
            Cause::Internal
        } else {
            Cause::Shutdown
        };
        self.record(Outcome::new(Party::Us, cause));
    }
}

/// Adds up all shards, with the label set of each sum.
pub(super) fn tally(shared: &Shared, shards: &Mutex<Vec<Arc<Shard>>>) -> (Vec<Labels>, Tally) {
    let mut tally = Tally::default();
    let shards = lock(shards).clone();
    for shard in &shards {
        shard.add_to(&mut tally);
    }
    // After the shards: every number in the tally has its labels by now.
    (shared.labels.all(), tally)
}
