//! The handles: [`Observer`] for the role, [`ShardObserver`] for each shard, [`OpenFlow`] for each walk.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::doors::Doors;
use super::exposition::Connections;
use super::figures::{Figure, Figures};
use super::label_table::LabelTable;
use super::lock;
use super::meters::{self, KernelCounters, Meters};
use super::process::Process;
use super::readiness::Readiness;
use super::renderer::Renderer;
use super::ring::ClosedFlows;
use super::shard::{Common, Shard, SlotId};
use super::watch::{Place, Watchers, Watching};
use crate::admission::Admission;
use crate::model::flow::Bytes;
use crate::model::{Cause, Decided, Direction, Flow, Outcome, Party};

/// Bounds on what is kept; the defaults are those of `docs/observability.md`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Closed flows remembered for `/flows`, over all shards, of each kind of client.
    pub closed_flows: usize,
    /// Label sets of connection metrics; later ones are counted under `overflow`.
    pub label_sets: usize,
    /// How long a label set stays that nobody uses, once the table is half full. Longer than any scraper pauses: the last
    /// value of a series has been read when the series ends.
    pub label_idle: Duration,
    /// Streams of `/flows?watch=true` at the same time, of the agent as many again.
    pub watchers: usize,
    /// Events waiting for one watcher before it is cut off.
    pub watch_queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            closed_flows: 1000,
            label_sets: 1000,
            label_idle: Duration::from_secs(10 * 60),
            watchers: 16,
            watch_queue: 1024,
        }
    }
}

/// How long watchers are given for their last events when the process ends, and how often that is looked at.
const FAREWELL: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(2);

/// The process's one observer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Observer {
    common: Arc<Common>,
    shards: Arc<Mutex<Vec<Arc<Shard>>>>,
    renderer: Arc<Renderer>,
    doors: Doors,
    meters: Arc<Meters>,
    readiness: Readiness,
    /// Whether another process accepts for the endpoints now.
    closed: watch::Sender<bool>,
    /// The observer is made at the start of the process.
    started: SystemTime,
}

/// One shard's handle of the observer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ShardObserver {
    shard: Arc<Shard>,
}

/// The record of a flow that runs. Its walk owns it; dropping it without [`OpenFlow::close`] records the flow as
/// ended by us, in a shutdown or by a panic.
#[derive(Debug)]
pub struct OpenFlow {
    shard: Arc<Shard>,
    direction: Direction,
    bytes: Arc<Bytes>,
    slot: SlotId,
    recorded: bool,
}

/// Writes to an open flow's record for somebody who does not own it, and drops this before the flow is closed.
#[derive(Clone, Debug)]
pub struct FlowHandle {
    shard: Arc<Shard>,
    slot: SlotId,
}

impl Observer {
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// From now on the endpoints accept nobody; those who are being answered are answered.
    pub fn close_endpoints(&self) {
        self.closed.send_replace(true);
    }

    /// Ends the watches of flows when each has been told of what has happened; who does not read is not waited for long.
    pub async fn finish_watches(&self) {
        self.common.watchers.end();
        let told = async {
            while self.common.watchers.any() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, told).await;
    }

    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// For a process that has no data path: the process's own figures, its conditions and doors, and what
    /// [`Observer::figures`] adds.
    pub fn plain() -> Self {
        let observer = Self::new();
        let registry = registry_of_any_process(&observer.readiness, &observer.doors);
        let (common, shards) = (observer.common.clone(), observer.shards.clone());
        let renderer = Renderer::new(registry, common, shards, Limits::default().label_idle);
        Self {
            renderer: Arc::new(renderer),
            ..observer
        }
    }

    pub fn with_limits(limits: Limits) -> Self {
        let common = Arc::new(Common {
            next_id: AtomicU64::new(1),
            labels: LabelTable::new(limits.label_sets),
            closed: ClosedFlows::new(limits.closed_flows),
            watchers: Arc::new(Watchers::new(limits.watchers, limits.watch_queue)),
        });
        let shards = Arc::default();
        let (readiness, doors) = (Readiness::new(), Doors::default());
        let mut registry = registry_of_any_process(&readiness, &doors);
        let meters = Meters::register(&mut registry);
        registry.register_collector(Box::new(Connections {
            common: common.clone(),
            shards: Arc::clone(&shards),
        }));
        let renderer = Renderer::new(registry, common.clone(), Arc::clone(&shards), limits.label_idle);
        Self {
            common,
            shards,
            renderer: Arc::new(renderer),
            doors,
            meters: Arc::new(meters),
            readiness,
            closed: watch::Sender::new(false),
            started: SystemTime::now(),
        }
    }

    /// The handle of shard `n`, counted from 0; the same shard each time it is asked for.
    pub fn shard(&self, n: usize) -> ShardObserver {
        let mut shards = lock(&self.shards);
        while shards.len() <= n {
            shards.push(Arc::new(Shard::new(self.common.clone())));
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
        self.renderer.register(KernelCounters::new(read));
    }

    /// Shows who waits at a door, and who was evicted from it. Doors of one name are added up.
    pub fn door(&self, name: &'static str, door: Admission) {
        self.doors.add(name, door);
    }

    /// Shows what a role counts by itself, read at each scrape. To be called once for each set of names.
    pub fn figures(&self, read: impl Fn() -> Vec<Figure> + Send + Sync + 'static) {
        self.renderer.register(Figures::new(read));
    }

    pub(super) fn renderer(&self) -> Arc<Renderer> {
        self.renderer.clone()
    }

    pub(super) fn shards(&self) -> Vec<Arc<Shard>> {
        lock(&self.shards).clone()
    }

    pub(super) fn started(&self) -> SystemTime {
        self.started
    }

    /// Those still connecting too.
    pub(super) fn open_flows(&self) -> u64 {
        let mut open = 0;
        for shard in self.shards() {
            shard.visit(|_, _, _| open += 1);
        }
        open
    }

    pub(super) fn closed(&self) -> &ClosedFlows {
        &self.common.closed
    }

    pub(super) fn watch(&self, place: Place) -> Option<Watching> {
        Watching::start(self.common.watchers.clone(), place)
    }

    pub(super) fn watch_queue(&self) -> usize {
        self.common.watchers.queue_len()
    }
}

/// What every process shows, whatever it does.
fn registry_of_any_process(readiness: &Readiness, doors: &Doors) -> Registry {
    let mut registry = Registry::default();
    meters::register_build(&mut registry);
    registry.register_collector(Box::new(readiness.clone()));
    registry.register_collector(Box::new(Process::new()));
    registry.register_collector(Box::new(doors.clone()));
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
        flow.id = self.shard.common().next_id.fetch_add(1, Relaxed);
        let (direction, bytes) = (flow.direction, flow.bytes.clone());
        let slot = self.shard.open(Box::new(flow));
        OpenFlow {
            shard: self.shard.clone(),
            direction,
            bytes,
            slot,
            recorded: false,
        }
    }
}

impl OpenFlow {
    /// Writes down what the walk has learned. The update that sets `connect_time` says that the upstream is usable:
    /// it settles the labels of the flow's metrics, and counts the flow as opened, so identities, service,
    /// transport and `handshake_time` belong into it or before it. `bytes` must stay the same.
    pub fn update(&self, change: impl FnOnce(&mut Flow)) {
        self.shard.update(self.slot, change);
    }

    /// Writes down a decision on the connection's way, as one that fell now.
    pub fn decided(&self, what: Decided) {
        self.update(|flow| flow.decided(SystemTime::now(), what));
    }

    /// The counters that the relay writes.
    pub fn bytes(&self) -> Arc<Bytes> {
        self.bytes.clone()
    }

    pub fn direction(&self) -> Direction {
        self.direction
    }

    pub fn handle(&self) -> FlowHandle {
        FlowHandle {
            shard: self.shard.clone(),
            slot: self.slot,
        }
    }

    pub fn close(mut self, outcome: Outcome) {
        self.record(outcome);
    }

    fn record(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.recorded, true) {
            self.shard.close(self.slot, SystemTime::now(), outcome);
        }
    }
}

impl FlowHandle {
    pub fn update(&self, change: impl FnOnce(&mut Flow)) {
        self.shard.update(self.slot, change);
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
