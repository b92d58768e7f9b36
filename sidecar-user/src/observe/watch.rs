//! Those who follow flows as they open and close. A queue each, bounded: who cannot keep up is cut off, and the
//! data path never waits. Strangers get no more than half of a queue, so that they cannot cut anybody off. Does not filter and writes no text; that is the reader's work, on the reader's thread.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::mpsc;

use super::lock;
use super::standing::Standing;
use crate::model::Flow;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    Opened,
    Closed,
}

pub(super) type Event = (Happened, Arc<Flow>);

#[derive(Debug)]
pub(super) struct Watchers {
    /// Read by every connection; the list only when it is not zero.
    count: AtomicUsize,
    list: RwLock<Vec<Arc<Watcher>>>,
    /// Of each kind of place.
    max: usize,
    queue: usize,
    /// Nothing will happen any more.
    over: AtomicBool,
}

#[derive(Debug)]
struct Watcher {
    /// `None` once the queue was full: the receiver drains what it has and then sees the end.
    queue: Mutex<Option<mpsc::Sender<Event>>>,
    /// Events of strangers that were left out since the watcher was last told.
    skipped: AtomicU64,
    place: Place,
}

/// Where a watcher comes from: programs of the pod may take all places that are for them, and none of the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Anyone,
    Agent,
}

/// One watcher's end of the queue; leaves the list when dropped.
#[derive(Debug)]
pub(super) struct Watching {
    pub events: mpsc::Receiver<Event>,
    watcher: Arc<Watcher>,
    watchers: Arc<Watchers>,
}

impl Watchers {
    pub(super) fn new(max: usize, queue: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            list: RwLock::default(),
            max,
            queue,
            over: AtomicBool::new(false),
        }
    }

    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    pub(super) fn tell(&self, happened: Happened, flow: Flow) {
        let is_strangers = Standing::of(&flow) == Standing::Stranger;
        let flow = Arc::new(flow);
        for watcher in &*self.list.read().unwrap_or_else(PoisonError::into_inner) {
            let mut queue = lock(&watcher.queue);
            let Some(sender) = &*queue else { continue };
            if is_strangers && sender.capacity() <= sender.max_capacity() / 2 {
                watcher.skipped.fetch_add(1, Ordering::Relaxed);
            } else if sender.try_send((happened, flow.clone())).is_err() {
                *queue = None;
            }
        }
    }

    /// Who watches is told what waits, and then sees the end.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        for watcher in &*self.list.read().unwrap_or_else(PoisonError::into_inner) {
            *lock(&watcher.queue) = None;
        }
    }

    pub(super) fn queue_len(&self) -> usize {
        self.queue
    }
}

impl Watching {
    /// `None` when there are as many watchers as there may be.
    pub(super) fn start(watchers: Arc<Watchers>, place: Place) -> Option<Self> {
        let (sender, events) = mpsc::channel(watchers.queue);
        let watcher = Arc::new(Watcher {
            queue: Mutex::new(Some(sender)),
            skipped: AtomicU64::new(0),
            place,
        });
        let mut list = watchers.list.write().unwrap_or_else(PoisonError::into_inner);
        if list.iter().filter(|other| other.place == place).count() >= watchers.max {
            return None;
        }
        list.push(watcher.clone());
        watchers.count.store(list.len(), Ordering::Relaxed);
        drop(list);
        Some(Self {
            events,
            watcher,
            watchers,
        })
    }

    /// Whether the end of its events is that of all.
    pub(super) fn is_over(&self) -> bool {
        self.watchers.over.load(Ordering::Relaxed)
    }

    /// How many events of strangers were left out since the last call.
    pub(super) fn take_skipped(&self) -> u64 {
        self.watcher.skipped.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut list = self.watchers.list.write().unwrap_or_else(PoisonError::into_inner);
        list.retain(|other| !Arc::ptr_eq(other, &self.watcher));
        self.watchers.count.store(list.len(), Ordering::Relaxed);
    }
}
