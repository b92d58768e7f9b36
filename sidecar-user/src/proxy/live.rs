//! The connections of a shard that run: one by one, by what is known of them, or all at once they can be ended from
//! outside, for a new policy, a withdrawn root, want of room, or the end of the proxy. Decides nothing itself.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::model::{Outcome, SpiffeId};

/// Every connection of a shard, from the moment it is let in (inbound) or joined to its upstream (outbound).
#[derive(Default)]
pub(super) struct Live {
    entries: RefCell<Slab<Rc<Entry>>>,
    /// All have to end, those that are yet to come included.
    ended: Cell<Option<Outcome>>,
    tunnels: Cell<u64>,
}

/// What an inbound connection is judged by, while it is dialled and while it runs.
#[derive(Clone, Debug)]
pub(super) struct Inbound {
    /// Proven by the tunnel; `None`: plaintext.
    pub(super) source: Option<SpiffeId>,
    /// Where the connection, or the tunnel that carries it, really comes from.
    pub(super) from: SocketAddr,
    /// The application's address.
    pub(super) destination: SocketAddr,
    pub(super) tunnel: Option<TunnelId>,
}

/// Tells the inbound tunnels of a shard apart; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TunnelId(u64);

struct Entry {
    /// `None`: an outbound connection.
    inbound: Option<Inbound>,
    cut: Cell<Option<Outcome>>,
    waker: RefCell<Option<Waker>>,
}

/// One of them, for as long as it lives.
pub(super) struct LiveConnection {
    live: Rc<Live>,
    key: usize,
    entry: Rc<Entry>,
}

impl Live {
    pub(super) fn enter(self: &Rc<Self>, inbound: Option<Inbound>) -> LiveConnection {
        let entry = Rc::new(Entry {
            inbound,
            cut: self.ended.clone(),
            waker: RefCell::default(),
        });
        LiveConnection {
            live: self.clone(),
            key: self.entries.borrow_mut().insert(entry.clone()),
            entry,
        }
    }

    pub(super) fn next_tunnel(&self) -> TunnelId {
        TunnelId(self.tunnels.replace(self.tunnels.get() + 1))
    }

    /// Ends every connection, and each that comes later.
    pub(super) fn cut_all(&self, outcome: Outcome) {
        self.ended.set(Some(outcome));
        for (_, entry) in self.entries.borrow().iter() {
            entry.cut(outcome);
        }
    }

    /// Ends the inbound connections that `condemned` picks, and says how many.
    pub(super) fn cut_where(&self, outcome: Outcome, condemned: impl Fn(&Inbound) -> bool) -> usize {
        let entries = self.entries.borrow();
        let picked = entries.iter().filter(|(_, entry)| entry.is_picked(&condemned));
        picked.map(|(_, entry)| entry.cut(outcome)).count()
    }

    /// The same in steps of `step` entries, with room for other work between them. Who enters meanwhile is not asked
    /// about for certain, and was let in by what was in force then.
    pub(super) async fn cut_in_steps(
        &self,
        step: usize,
        outcome: Outcome,
        condemned: impl Fn(&Inbound) -> bool,
    ) -> usize {
        let mut cut = 0;
        let mut from = 0;
        loop {
            {
                let entries = self.entries.borrow();
                let picked = (from..from + step)
                    .filter_map(|key| entries.get(key))
                    .filter(|entry| entry.is_picked(&condemned));
                cut += picked.map(|entry| entry.cut(outcome)).count();
                from += step;
                if from >= entries.capacity() {
                    return cut;
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Entry {
    /// Once cut it is as good as gone, and is not picked again.
    fn is_picked(&self, condemned: impl Fn(&Inbound) -> bool) -> bool {
        self.cut.get().is_none() && self.inbound.as_ref().is_some_and(condemned)
    }

    fn cut(&self, outcome: Outcome) {
        self.cut.set(Some(outcome));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl LiveConnection {
    /// Ready when the connection has to end. One look at a flag for each wake-up: a future to select on would be polled
    /// with every message.
    pub(super) fn poll_cut(&self, cx: &Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.entry.cut.get() {
            return Poll::Ready(outcome);
        }
        // A task's waker does not change, so the first one serves.
        let mut waker = self.entry.waker.borrow_mut();
        if waker.is_none() {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Ends this one, as if from outside.
    pub(super) fn cut(&self, outcome: Outcome) {
        self.entry.cut(outcome);
    }

    /// Does the work, unless the connection has to end before it is done.
    pub(super) async fn unless_cut<T>(&self, work: impl Future<Output = T>) -> Result<T, Outcome> {
        let mut work = pin!(work);
        poll_fn(|cx| match self.poll_cut(cx) {
            Poll::Ready(outcome) => Poll::Ready(Err(outcome)),
            Poll::Pending => work.as_mut().poll(cx).map(Ok),
        })
        .await
    }
}

impl Drop for LiveConnection {
    fn drop(&mut self) {
        self.live.entries.borrow_mut().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::model::{Cause, Party};

    const DENIED: Outcome = Outcome::new(Party::Policy, Cause::Denied);
    const SHUTDOWN: Outcome = Outcome::new(Party::Us, Cause::Shutdown);

    fn from(port: u16, tunnel: Option<TunnelId>) -> Option<Inbound> {
        Some(Inbound {
            source: None,
            from: ([10, 0, 0, 1], port).into(),
            destination: ([10, 0, 0, 2], 80).into(),
            tunnel,
        })
    }

    /// What a connection that waits for nothing else is told.
    async fn end(connection: &LiveConnection) -> Option<Outcome> {
        tokio::select! {
            biased;
            cut = connection.unless_cut(pending::<()>()) => cut.err(),
            () = tokio::task::yield_now() => None,
        }
    }

    #[tokio::test]
    async fn only_those_that_are_picked_end_and_each_once() {
        let live = Rc::new(Live::default());
        let (one, other) = (live.next_tunnel(), live.next_tunnel());
        let condemned = live.enter(from(1, Some(one)));
        let spared = live.enter(from(2, Some(other)));
        let outbound = live.enter(None);
        let of_one = |inbound: &Inbound| inbound.tunnel == Some(one);
        assert_eq!(live.cut_where(DENIED, of_one), 1);
        assert_eq!(live.cut_where(DENIED, of_one), 0, "it has ended already");
        assert_eq!(end(&condemned).await, Some(DENIED));
        assert_eq!(end(&spared).await, None);
        assert_eq!(end(&outbound).await, None);
    }

    /// In a task of its own, which nothing else wakes.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_waits_for_something_else_is_woken() {
        let live = Rc::new(Live::default());
        let connection = live.enter(from(1, None));
        let ended = async {
            let waiting =
                tokio::task::spawn_local(async move { connection.unless_cut(pending::<()>()).await });
            tokio::task::yield_now().await;
            live.cut_where(DENIED, |_| true);
            let limit = std::time::Duration::from_secs(1);
            tokio::time::timeout(limit, waiting).await
        };
        let ended = tokio::task::LocalSet::new().run_until(ended).await;
        assert_eq!(ended.expect("it is not woken").unwrap(), Err(DENIED));
    }

    #[tokio::test]
    async fn after_the_end_of_all_nobody_begins() {
        let live = Rc::new(Live::default());
        let (inbound, outbound) = (live.enter(from(1, None)), live.enter(None));
        live.cut_all(SHUTDOWN);
        for connection in [inbound, outbound, live.enter(from(2, None))] {
            assert_eq!(end(&connection).await, Some(SHUTDOWN));
        }
    }

    #[tokio::test]
    async fn in_steps_as_many_end_as_at_once() {
        let live = Rc::new(Live::default());
        let mut all: Vec<_> = (1..=100).map(|port| live.enter(from(port, None))).collect();
        // Holes in the table are no end of it.
        all.drain(10..40);
        let odd = |inbound: &Inbound| inbound.from.port() % 2 == 1;
        let expected = all
            .iter()
            .filter(|c| c.entry.inbound.as_ref().is_some_and(odd))
            .count();
        assert_eq!(live.cut_in_steps(7, DENIED, odd).await, expected);
        assert_eq!(live.cut_where(DENIED, odd), 0);
    }

    #[test]
    fn a_connection_that_ends_by_itself_leaves_nothing() {
        let live = Rc::new(Live::default());
        drop(live.enter(from(1, None)));
        assert!(live.entries.borrow().is_empty());
    }
}
