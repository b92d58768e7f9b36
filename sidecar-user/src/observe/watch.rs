//! Those who follow flows as they open and close. A queue each, bounded: who cannot keep up is cut off, and the
//! data path never waits. Does not filter and writes no text; that is the reader's work, on the reader's thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::mpsc;

use super::lock;
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
    max: usize,
    queue: usize,
}

#[derive(Debug)]
struct Watcher {
    /// `None` once the queue was full: the receiver drains what it has and then sees the end.
    queue: Mutex<Option<mpsc::Sender<Event>>>,
}

/// One watcher's end of the queue; leaves the list when dropped.
#[derive(Debug)]
pub(super) struct Watching {
    pub events: mpsc::Receiver<Event>,
    watcher: Arc<Watcher>,
    shared: Arc<super::shard::Shared>,
}

impl Watchers {
    pub(super) fn new(max: usize, queue: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            list: RwLock::default(),
            max,
            queue,
        }
    }

    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    pub(super) fn tell(&self, happened: Happened, flow: Flow) {
        let flow = Arc::new(flow);
        for watcher in &*self.list.read().unwrap_or_else(PoisonError::into_inner) {
            let mut queue = lock(&watcher.queue);
            if let Some(sender) = &*queue
                && sender.try_send((happened, flow.clone())).is_err()
            {
                *queue = None;
            }
        }
    }

    pub(super) fn queue_len(&self) -> usize {
        self.queue
    }
}

impl Watching {
    /// `None` when there are as many watchers as there may be.
    pub(super) fn start(shared: Arc<super::shard::Shared>) -> Option<Self> {
        let watchers = &shared.watchers;
        let (sender, events) = mpsc::channel(watchers.queue);
        let watcher = Arc::new(Watcher {
            queue: Mutex::new(Some(sender)),
        });
        let mut list = watchers.list.write().unwrap_or_else(PoisonError::into_inner);
        if list.len() >= watchers.max {
            return None;
        }
        list.push(watcher.clone());
        watchers.count.store(list.len(), Ordering::Relaxed);
        drop(list);
        Some(Self {
            events,
            watcher,
            shared,
        })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let watchers = &self.shared.watchers;
        let mut list = watchers.list.write().unwrap_or_else(PoisonError::into_inner);
        list.retain(|other| !Arc::ptr_eq(other, &self.watcher));
        watchers.count.store(list.len(), Ordering::Relaxed);
    }
}
