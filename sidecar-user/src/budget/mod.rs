//! HOW MUCH MAY BE BUFFERED? One number of bytes for the whole process, and what each holder may have of it. Allocates
//! nothing and reads nothing: holders say what they hold, and ask before they take more.
//!
//! A holder's share shrinks with the square of what is *free*. While little is held the share is large, so that nobody is
//! slowed down; each holder that fills its share makes all later ones smaller, but free space never ends: with shares of
//! at most `c` and `n` holders that are stuck, the part that is free is 1 / (1 + n·c / total). So the total is kept without
//! taking anything away from anybody, newcomers always get some, and those who hold most wait first. (Switches share
//! their packet memory like this: Choudhury and Hahne, "Dynamic queue length thresholds", 1998.)
//!
//! A least share keeps everybody moving. It is reached when thousands of connections are stuck at once; each further
//! one that is stuck, too, adds so much to the total.

mod host;
mod sys;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

pub use host::{default_total, trim};

/// One connection's share when everything is free: a 512th of the total, which is the largest read with 64 MiB.
const CONNECTION: usize = 512;
/// With a small total reads become smaller, down to this: half of the throughput in bulk.
const SMALL_CONNECTION: usize = 32 * 1024;
/// Reached with 7,700 connections that are stuck at once. Most messages of a request fit.
const LEAST_CONNECTION: usize = 512;
/// One tunnel's share when everything is free: a fifth of the total.
const TUNNEL: usize = 5;
/// Reached with 65 tunnels that are stuck at once: four frames of the usual size.
const LEAST_TUNNEL: usize = 64 * 1024;

/// The process's budget. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: usize,
    used: AtomicUsize,
    /// The most that was ever used.
    peak: AtomicUsize,
    /// The most since somebody asked.
    recent: AtomicUsize,
    /// Someone waits for the shares to grow.
    awaited: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
    waits: AtomicUsize,
}

/// What one holder has; given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub fn new(total: usize) -> Self {
        Self(Arc::new(Shared {
            total,
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            recent: AtomicUsize::new(0),
            awaited: AtomicBool::new(false),
            waiting: Mutex::default(),
            waits: AtomicUsize::new(0),
        }))
    }

    pub fn total(&self) -> usize {
        self.0.total
    }

    pub fn used(&self) -> usize {
        self.0.used.load(Relaxed)
    }

    pub fn peak(&self) -> usize {
        self.0.peak.load(Relaxed)
    }

    /// The most that was used since this was asked before.
    pub fn take_peak(&self) -> usize {
        self.0.recent.swap(self.used(), Relaxed)
    }

    /// How often a holder had to wait for its share to grow.
    pub fn waits(&self) -> usize {
        self.0.waits.load(Relaxed)
    }

    /// What a single connection may hold now.
    pub fn connection_share(&self) -> usize {
        let whole = (self.0.total / CONNECTION).max(SMALL_CONNECTION);
        self.part(whole).max(LEAST_CONNECTION)
    }

    /// What a tunnel, which carries many connections, may promise to hold now.
    pub fn tunnel_share(&self) -> usize {
        self.part(self.0.total / TUNNEL).max(LEAST_TUNNEL)
    }

    /// Must a tunnel that holds so much wait? While anything is free, what it was promised bounds it, and to stop it would
    /// stop the connections that move beside those that do not. Only when all is used, those who hold something wait.
    pub fn must_wait(&self, held: usize) -> bool {
        self.used() >= self.0.total && held > LEAST_TUNNEL
    }

    /// A holder that has nothing yet.
    pub fn holder(&self) -> Held {
        Held {
            budget: self.clone(),
            bytes: 0,
        }
    }

    /// Wakes the caller when something is given back.
    pub fn wake_when_freed(&self, waker: &Waker) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        self.0.waits.fetch_add(1, Relaxed);
        self.0.awaited.store(true, SeqCst);
    }

    /// As much of `whole` as the square of the free part leaves.
    fn part(&self, whole: usize) -> usize {
        let free = self.0.total.saturating_sub(self.used()) as f64 / self.0.total as f64;
        (whole as f64 * free * free) as usize
    }

    fn add(&self, bytes: usize) {
        let used = self.0.used.fetch_add(bytes, Relaxed) + bytes;
        // Loads first: in the long run neither is written.
        for peak in [&self.0.peak, &self.0.recent] {
            if used > peak.load(Relaxed) {
                peak.fetch_max(used, Relaxed);
            }
        }
    }

    fn give_back(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, SeqCst);
        if self.0.awaited.load(SeqCst) && self.0.awaited.swap(false, SeqCst) {
            let waiting = std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            for waker in waiting {
                waker.wake();
            }
        }
    }
}

impl Held {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    pub fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.add(bytes - self.bytes);
        } else if bytes < self.bytes {
            self.budget.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    pub fn add(&mut self, bytes: usize) {
        self.set(self.bytes + bytes);
    }

    pub fn sub(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_sub(bytes));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn those_who_fill_their_shares_never_exceed_the_total_and_leave_some_for_a_newcomer() {
        let budget = Budget::new(64 * MIB);
        let mut holders = Vec::new();
        for n in 0..7000 {
            let mut held = budget.holder();
            held.set(budget.connection_share());
            holders.push(held);
            assert!(budget.used() <= budget.total(), "after {n}");
        }
        assert_eq!(holders[0].bytes(), 128 * 1024, "the first found everything free");
        assert!(budget.connection_share() > LEAST_CONNECTION);
        assert!(budget.tunnel_share() >= LEAST_TUNNEL, "a tunnel still moves");
        drop(holders);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn stuck_tunnels_leave_some_for_others() {
        let budget = Budget::new(64 * MIB);
        let holders: Vec<Held> = (0..60)
            .map(|_| {
                let mut held = budget.holder();
                held.set(budget.tunnel_share());
                held
            })
            .collect();
        assert!(budget.used() <= budget.total());
        assert!(holders[1].bytes() < holders[0].bytes());
        assert!(budget.connection_share() >= LEAST_CONNECTION);
    }

    #[test]
    fn beyond_the_total_each_gets_the_least() {
        let budget = Budget::new(MIB);
        let mut all = budget.holder();
        all.set(2 * MIB);
        assert_eq!(budget.connection_share(), LEAST_CONNECTION);
        assert_eq!(budget.tunnel_share(), LEAST_TUNNEL);
        assert!(!budget.must_wait(LEAST_TUNNEL) && budget.must_wait(LEAST_TUNNEL + 1));
        all.set(MIB - 1);
        assert!(!budget.must_wait(MIB - 1), "something is free");
    }

    #[test]
    fn who_waits_is_woken_when_something_is_given_back() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let woken = Arc::new(Count(AtomicUsize::new(0)));
        let budget = Budget::new(MIB);
        let mut held = budget.holder();
        held.set(1000);
        let waker = Waker::from(woken.clone());
        budget.wake_when_freed(&waker);
        budget.wake_when_freed(&waker);
        held.add(1);
        assert_eq!(woken.0.load(Relaxed), 0);
        held.sub(1);
        held.sub(1);
        assert_eq!(woken.0.load(Relaxed), 1, "once, and for one registration");
    }
}
