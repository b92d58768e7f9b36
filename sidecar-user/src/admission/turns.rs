//! Whose step comes next, where steps of the newcomers cost a core's time: one at a time, and round robin over the sources.
//!
//! A place at the door says that somebody may wait, not for how long. Where one source begins a hundred handshakes while
//! another begins one, first come first served would let the one wait for the hundred.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::oneshot;

use super::source::Source;

/// Cheap to clone; the clones share the turn.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    is_taken: bool,
    /// Those of which somebody waits; the first is next.
    sources: VecDeque<Source>,
    /// Of each, in the order of arrival. Who waits no longer is passed over.
    waiting: HashMap<Source, VecDeque<oneshot::Sender<Turn>>>,
}

/// The right to make a step. Goes to the next one when it is dropped.
#[derive(Debug)]
struct Turn(Option<Turns>);

impl Turns {
    /// Runs a future to its end, each of its steps (its polls) in a turn of its source.
    pub async fn by_turns<F: Future>(&self, source: Option<IpAddr>, future: F) -> F::Output {
        let source = Source::of(source);
        let mut future = pin!(future);
        loop {
            let turn = self.next(source).await;
            let step = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
            drop(turn);
            match step {
                Poll::Ready(output) => return output,
                Poll::Pending => woken().await,
            }
        }
    }

    async fn next(&self, source: Source) -> Turn {
        if let Some(turn) = self.free() {
            // Whoever is ready beside this one joins the line meanwhile. On one thread nobody would ever be in it.
            after_others().await;
            return turn;
        }
        let given = self.line().join(source);
        // The line, which has the other end, lives as long as `self`.
        given.await.unwrap_or(Turn(None))
    }

    fn free(&self) -> Option<Turn> {
        let was_taken = std::mem::replace(&mut self.line().is_taken, true);
        (!was_taken).then(|| Turn(Some(self.clone())))
    }

    fn pass_on(&self) {
        while let Some(next) = self.line().next() {
            match next.send(Turn(Some(self.clone()))) {
                Ok(()) => return,
                // Nobody waits there any more. Dropped as it is, it would be passed on from here, and so on, call in call.
                Err(mut turn) => drop(turn.0.take()),
            }
        }
    }

    /// Locks even after a panic in another holder: the line is valid between any two of its calls.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn join(&mut self, source: Source) -> oneshot::Receiver<Turn> {
        let (give, given) = oneshot::channel();
        let of_source = self.waiting.entry(source).or_default();
        if of_source.is_empty() {
            self.sources.push_back(source);
        }
        of_source.push_back(give);
        given
    }

    /// `None`: nobody waits, and the turn is free.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let next = self.sources.pop_front().and_then(|source| {
            let of_source = self.waiting.get_mut(&source)?;
            let first = of_source.pop_front();
            if of_source.is_empty() {
                self.waiting.remove(&source);
            } else {
                self.sources.push_back(source);
            }
            first
        });
        self.is_taken = next.is_some();
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

/// Completes when all tasks that are ready have been polled.
async fn after_others() {
    let mut again = false;
    poll_fn(|cx| match std::mem::replace(&mut again, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Completes when the task is polled again, which is left to whatever it waits for.
async fn woken() {
    let mut again = false;
    poll_fn(|_| match std::mem::replace(&mut again, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use tokio::task::LocalSet;

    use super::*;

    fn ip(host: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, host]))
    }

    /// Takes so many steps, and writes down whose each was.
    async fn steps(name: u8, count: usize, seen: &RefCell<Vec<u8>>) {
        for _ in 0..count {
            seen.borrow_mut().push(name);
            after_others().await;
        }
    }

    #[tokio::test]
    async fn one_of_a_source_does_not_wait_for_the_crowd_of_another() {
        let (turns, seen) = (Turns::default(), Rc::new(RefCell::new(Vec::new())));
        let local = LocalSet::new();
        for source in std::iter::repeat_n(1, 100).chain([2]) {
            let (turns, seen) = (turns.clone(), seen.clone());
            local.spawn_local(async move { turns.by_turns(ip(source), steps(source, 3, &seen)).await });
        }
        local.await;
        let seen = seen.borrow();
        assert_eq!(seen.len(), 303);
        // It came last of all.
        let last = seen.iter().rposition(|source| *source == 2).unwrap();
        assert!(last < 20, "{seen:?}");
        assert!(!turns.line().is_taken && turns.line().waiting.is_empty());
    }

    #[tokio::test]
    async fn who_waits_no_longer_is_passed_over_and_a_turn_that_nobody_takes_goes_on() {
        let turns = Turns::default();
        let held = turns.next(Source::of(ip(1))).await;
        let mut gone = Box::pin(turns.next(Source::of(ip(1))));
        let mut given = Box::pin(turns.next(Source::of(ip(2))));
        let mut last = Box::pin(turns.next(Source::of(ip(2))));
        for waiting in [&mut gone, &mut given, &mut last] {
            poll_fn(|cx| {
                assert!(waiting.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        drop(gone);
        drop(held);
        // It has its turn, and does not look.
        drop(given);
        drop(last.await);
        assert!(!turns.line().is_taken);
    }

    #[tokio::test]
    async fn many_that_have_gone_are_passed_over_without_a_call_in_a_call() {
        let turns = Turns::default();
        let held = turns.next(Source::Local).await;
        for host in 0..200 {
            for _ in 0..500 {
                drop(turns.line().join(Source::of(ip(host))));
            }
        }
        drop(held);
        assert!(!turns.line().is_taken && turns.line().sources.is_empty());
    }

    #[tokio::test]
    async fn a_step_is_made_by_one_at_a_time() {
        let (turns, inside) = (Turns::default(), Rc::new(Cell::new(0)));
        let local = LocalSet::new();
        for host in 0..8 {
            let (turns, inside) = (turns.clone(), inside.clone());
            local.spawn_local(async move {
                let step = async {
                    assert_eq!(inside.replace(1), 0);
                    inside.set(0);
                    after_others().await;
                };
                turns.by_turns(ip(host), step).await;
            });
        }
        local.await;
    }
}
