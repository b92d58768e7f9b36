//! Carries out what the table of held SYNs decides: dials, asks and tells the kernel, sends the answers.
//!
//! Decides nothing itself; [`super::held`] does.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::pending;
use std::rc::Rc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};

use super::super::contain::{OnPanic, contained};
use super::super::limits::Resources;
use super::super::outcome::Answer;
use super::super::walk::outbound::{self, Ready};
use super::context::Shard;
use super::held::{Dial, Effect, HeldTable, Key, Reason};
use crate::datapath::{Approvals, HELD_MOST, HeldEvents};
use crate::intercept::RawSockets;
use crate::intercept::packet::{self, Packet};
use crate::model::addr::canonical;
use crate::model::{ClientAddr, HeldSyn, Pair};

/// Held connections of one shard, at most: each lives as long as its application waits, minutes perhaps, and may take a
/// descriptor for its upstream.
const LIMIT: usize = 4096;
/// Of the descriptors that this process may have, all held connections may take one in so many.
const DESCRIPTORS: usize = 4;

pub(super) struct Holding {
    shard: Rc<Shard>,
    approvals: Approvals,
    raw: RawSockets,
    table: RefCell<HeldTable<Ready>>,
    /// The dials that go on. Each is cancelled when its sender is dropped.
    dials: RefCell<HashMap<Dial, oneshot::Sender<()>>>,
    /// What [`Self::follow`] sleeps until.
    alarm: Cell<Option<Instant>>,
    /// It has to sleep shorter.
    earlier: Notify,
}

impl Holding {
    /// For one of `shards`, of a process that may open so many files.
    pub(super) fn new(
        shard: Rc<Shard>,
        approvals: Approvals,
        raw: RawSockets,
        (shards, files): (usize, usize),
    ) -> Rc<Self> {
        Rc::new(Self {
            shard,
            approvals,
            raw,
            table: RefCell::new(HeldTable::new(limit(shards, files))),
            dials: RefCell::default(),
            alarm: Cell::default(),
            earlier: Notify::new(),
        })
    }

    /// Follows the connections that are not accepted yet. Never ends.
    pub(super) async fn follow(self: Rc<Self>, mut events: HeldEvents) {
        let left_alone = self.shard.left_alone.clone();
        events.tell_of_left_alone(move |event| left_alone.event(event, Instant::now()));
        loop {
            let alarm = self.table.borrow().next_timeout();
            self.alarm.set(alarm);
            let closed = || self.shard.is_closed();
            let news = events.next(|event| {
                contained(|| self.decide(|table, now| table.event(event, closed(), now)));
            });
            tokio::select! {
                read = news => if let Err(error) = read {
                    tracing::error!(%error, "held connections cannot be followed; they time out");
                    return pending().await;
                },
                () = until(alarm) => contained(|| self.decide(HeldTable::timeout)),
                () = self.earlier.notified() => {}
            }
        }
    }

    /// What is ready for a connection that has been accepted, if it was held.
    pub(super) fn accepted(&self, app: &TcpStream, client: ClientAddr) -> Option<Ready> {
        let pair = Pair {
            client: client.0,
            listener: canonical(app.local_addr().ok()?),
        };
        self.table.borrow_mut().accepted(pair)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.borrow().is_empty()
    }

    /// The proxy ends: nobody is kept waiting for it.
    pub(super) fn end(self: &Rc<Self>) {
        self.decide(|table, _| table.end());
    }

    /// Hands an event to the table, and does what it decides.
    fn decide(self: &Rc<Self>, event: impl FnOnce(&mut HeldTable<Ready>, Instant)) {
        event(&mut self.table.borrow_mut(), Instant::now());
        loop {
            let effect = self.table.borrow_mut().effect();
            match effect {
                Some(effect) => self.carry_out(effect),
                None => break,
            }
        }
        let next = self.table.borrow().next_timeout();
        if next.is_some_and(|next| self.alarm.get().is_none_or(|alarm| next < alarm)) {
            self.earlier.notify_one();
        }
    }

    fn carry_out(self: &Rc<Self>, effect: Effect<Ready>) {
        match effect {
            Effect::Dial(dial, syn) => self.dial(dial, syn),
            Effect::Cancel(dial) => drop(self.dials.borrow_mut().remove(&dial)),
            Effect::Look(key) => {
                // Where the kernel cannot be asked, the SYN counts as held: it was, a moment ago.
                let held = self.approvals.is_held(key.pair, key.sequence).unwrap_or(true);
                self.table.borrow_mut().looked(key, held);
            }
            Effect::Recall(syn) => {
                if self.approvals.is_held(syn.pair, syn.sequence).unwrap_or(true) {
                    let (closed, now) = (self.shard.is_closed(), Instant::now());
                    self.table.borrow_mut().held(syn, closed, now);
                }
            }
            Effect::Approve(syn) => self.approve(&syn),
            Effect::Withdraw(key) => {
                if let Err(error) = self.approvals.withdraw(key.pair, key.sequence) {
                    tracing::warn!(client = %key.pair.client, %error, "an approval cannot be taken back");
                }
            }
            // The client's next SYN comes to the proxy that serves the pod now, and so does its connection.
            Effect::Answer(_, Answer::Refused) if self.shard.is_replaced() && self.shard.is_cut() => {}
            Effect::TurnAway(_, Reason::Closed) if self.shard.is_replaced() => {}
            Effect::Answer(syn, Answer::Refused) => self.send(&packet::refusal(syn.pair, syn.sequence)),
            Effect::Answer(syn, Answer::Unreachable(what)) => self.send(&packet::unreachable(&syn, what)),
            Effect::Reset(ready) => outbound::give_up(ready),
            Effect::TurnAway(syn, reason) => {
                self.send(&packet::refusal(syn.pair, syn.sequence));
                let lacking = match reason {
                    Reason::Closed => None,
                    Reason::NoRoom => Some(Resources::Places),
                };
                outbound::turned_away(&self.shard, &syn, lacking);
            }
            Effect::Stray(key) => {
                self.send(&packet::refusal(key.pair, key.sequence));
                outbound::stray(&self.shard, key.pair);
            }
        }
    }

    fn dial(self: &Rc<Self>, dial: Dial, syn: Rc<HeldSyn>) {
        let _unwound = self.fails_on_panic(dial);
        let Ok(place) = self.shard.descriptors.reserve() else {
            outbound::turned_away(&self.shard, &syn, Some(Resources::Descriptors));
            let now = Instant::now();
            return self.table.borrow_mut().dialed(dial, Err(Answer::Refused), now);
        };
        let (cancel, cancelled) = oneshot::channel();
        self.dials.borrow_mut().insert(dial, cancel);
        let holding = self.clone();
        tokio::task::spawn_local(async move {
            let _unwound = holding.fails_on_panic(dial);
            let walk = outbound::held(&holding.shard, &syn, place, cancelled);
            if let Some(result) = walk.await {
                holding.dialed(dial, result);
            }
        });
    }

    fn dialed(self: &Rc<Self>, dial: Dial, result: Result<Ready, Answer>) {
        self.dials.borrow_mut().remove(&dial);
        self.decide(|table, now| table.dialed(dial, result, now));
    }

    /// Refuses the connection when its walk unwinds: its connect() would wait until the application gives up.
    fn fails_on_panic(self: &Rc<Self>, dial: Dial) -> OnPanic<impl FnMut()> {
        let holding = self.clone();
        OnPanic(move || holding.dialed(dial, Err(Answer::Refused)))
    }

    fn approve(&self, syn: &HeldSyn) {
        match self.approvals.approve(syn.pair, syn.sequence) {
            // Were it lost, the client's own next SYN would be let in.
            Ok(true) => self.send(&packet::again(syn)),
            Ok(false) => self.table.borrow_mut().not_held(Key::of(syn)),
            Err(error) => {
                tracing::warn!(client = %syn.pair.client, %error, "a held connection cannot be let in");
                let mut table = self.table.borrow_mut();
                table.approval_failed(Key::of(syn), Instant::now());
            }
        }
    }

    fn send(&self, packet: &Packet) {
        if let Err(error) = self.raw.send(packet) {
            tracing::debug!(to = %packet.to, %error, "an answer to a held SYN was not sent");
        }
    }
}

async fn until(alarm: Option<Instant>) {
    match alarm {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// A shard's part of the places in the kernel, and of the descriptors.
fn limit(shards: usize, files: usize) -> usize {
    let shards = shards.max(1);
    LIMIT
        .min(HELD_MOST / shards)
        .min(files / DESCRIPTORS / shards)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shards_together_take_no_more_than_there_is() {
        for shards in [1, 2, 8, 64] {
            let each = limit(shards, 1 << 20);
            assert!(each <= LIMIT && each * shards <= HELD_MOST, "{shards}: {each}");
            assert!(limit(shards, 4096) * shards <= 1024, "few descriptors");
        }
        assert_eq!(limit(64, 16), 1);
    }
}
