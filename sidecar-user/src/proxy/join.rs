//! The last stage of both walks: relay until a side ends it, or the proxy has to.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, Waker};

use super::contain::Joined;
use super::outcome;
use super::shard::Shard;
use crate::model::{Cause, Outcome, Party};
use crate::observe::OpenFlow;
use crate::relay::{Port, relay};

/// Ends every relayed connection of a shard at once. Costs a connection one look at a flag per wake-up: a future to
/// select on would be polled with every message.
#[derive(Default)]
pub(super) struct Cut {
    done: Cell<bool>,
    next: Cell<u64>,
    waiting: RefCell<HashMap<u64, Waker>>,
}

impl Cut {
    pub(super) fn now(&self) {
        self.done.set(true);
        for (_, waker) in self.waiting.take() {
            waker.wake();
        }
    }
}

/// A connection's place among those to be woken.
struct Waiting<'c> {
    cut: &'c Cut,
    id: Option<u64>,
}

impl Waiting<'_> {
    /// A task's waker does not change, so the first one serves.
    fn wake_by(&mut self, waker: &Waker) {
        if self.id.is_none() {
            let id = self.cut.next.replace(self.cut.next.get() + 1);
            self.cut.waiting.borrow_mut().insert(id, waker.clone());
            self.id = Some(id);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.cut.waiting.borrow_mut().remove(&id);
        }
    }
}

pub(super) async fn join(
    shard: &Shard,
    down: &mut impl Port,
    up: &mut impl Port,
    flow: &OpenFlow,
) -> Outcome {
    let bytes = flow.bytes();
    let mut waiting = Waiting {
        cut: &shard.cut,
        id: None,
    };
    let ports = Joined { down, up };
    let end = {
        let mut relay = pin!(relay(
            &mut *ports.down,
            &mut *ports.up,
            &bytes,
            &shard.budget,
            shard.relay
        ));
        poll_fn(|cx| {
            if waiting.cut.done.get() {
                return Poll::Ready(None);
            }
            waiting.wake_by(cx.waker());
            relay.as_mut().poll(cx).map(Some)
        })
        .await
    };
    match end {
        Some(end) => outcome::of_end(&end),
        None => {
            // Cut in the middle, and so it must look.
            ports.down.reset();
            ports.up.reset();
            Outcome::new(Party::Us, Cause::Shutdown)
        }
    }
}
