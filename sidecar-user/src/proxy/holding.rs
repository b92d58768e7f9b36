//! The connections of one shard whose SYN the kernel holds: who waits, who may come in, who has given up.
//!
//! Bounded: a held connection lives as long as its application waits, minutes perhaps, and takes a socket. Does not
//! dial; the outbound walk does.
//!
//! ```text
//!   Held ──▶ Waiting ──ready──▶ Ready ──take──▶ (accepted)
//!               │                 │
//!               └──── Gone ───────┴──▶ (forgotten, the upstream reset)
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::contain::OnPanic;
use crate::datapath::{Approvals, HELD_ENTRIES};
use crate::intercept::RawSockets;
use crate::intercept::packet::{self, Packet};
use crate::model::{HeldSyn, Pair};

/// Held connections of one shard, at most. Each may take a descriptor for its upstream.
const LIMIT: usize = 4096;
/// Of the descriptors that this process may have, all held connections may take one in so many.
const DESCRIPTORS: usize = 4;
/// News of a connection's end can be lost when the ring is full. An entry of this age is looked up in the kernel.
const DOUBT: Duration = Duration::from_secs(5);

/// `R`: what is ready for an application that is let in.
pub(super) struct Holding<R> {
    approvals: Approvals,
    raw: RawSockets,
    limit: usize,
    entries: RefCell<HashMap<Pair, Entry<R>>>,
    /// Entries for each destination.
    destinations: RefCell<HashMap<IpAddr, usize>>,
}

struct Entry<R> {
    sequence: u32,
    destination: IpAddr,
    since: Instant,
    /// Not in the kernel any more at the last look. It leaves there a moment before it is accepted here.
    suspect: bool,
    state: State<R>,
}

enum State<R> {
    /// Dropped when the application has gone, which the other end notices.
    Waiting(#[expect(dead_code, reason = "only dropped")] oneshot::Sender<()>),
    Ready(R),
}

/// Completes when the application is no longer waiting.
pub(super) struct Gone(oneshot::Receiver<()>);

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl<R> Holding<R> {
    /// For one of `shards`, of a process that may open so many files.
    pub(super) fn new(approvals: Approvals, raw: RawSockets, shards: usize, files: usize) -> Self {
        Self {
            approvals,
            raw,
            limit: limit(shards, files),
            entries: RefCell::default(),
            destinations: RefCell::default(),
        }
    }

    /// A SYN has come. `Ok(None)`: it is known already.
    pub(super) fn begin(&self, syn: &HeldSyn) -> Result<Option<Gone>, Full> {
        let known = self.entries.borrow().get(&syn.pair).map(|e| e.sequence);
        if known == Some(syn.sequence) {
            return Ok(None);
        }
        let destination = syn.original_dst.0.ip();
        let mine = self
            .destinations
            .borrow()
            .get(&destination)
            .copied()
            .unwrap_or_default();
        if !has_room(mine, self.entries.borrow().len(), self.limit) {
            return Err(Full);
        }
        *self.destinations.borrow_mut().entry(destination).or_default() += 1;
        let (sender, receiver) = oneshot::channel();
        let entry = Entry {
            sequence: syn.sequence,
            destination,
            since: Instant::now(),
            suspect: false,
            state: State::Waiting(sender),
        };
        self.entries.borrow_mut().insert(syn.pair, entry);
        Ok(Some(Gone(receiver)))
    }

    /// The SYN has come before.
    pub(super) fn knows(&self, syn: &HeldSyn) -> bool {
        let entries = self.entries.borrow();
        entries.get(&syn.pair).is_some_and(|e| e.sequence == syn.sequence)
    }

    /// What is left of an earlier connection over the same two ends, whose end has not been told.
    pub(super) fn earlier(&self, syn: &HeldSyn) -> Option<R> {
        let known = self.entries.borrow().get(&syn.pair).map(|e| e.sequence);
        match known {
            Some(sequence) if sequence != syn.sequence => self.forget(syn.pair, sequence),
            _ => None,
        }
    }

    /// The upstream has accepted: lets the application in. Gives `ready` back if it has gone meanwhile.
    pub(super) fn ready(&self, syn: &HeldSyn, ready: R) -> Result<(), R> {
        // A SYN that is sent again for somebody who has gone would speak for whoever came after.
        if matches!(self.approvals.is_held(syn.pair, syn.sequence), Ok(false)) {
            return Err(ready);
        }
        match self.entries.borrow_mut().get_mut(&syn.pair) {
            Some(entry) if entry.sequence == syn.sequence => entry.state = State::Ready(ready),
            _ => return Err(ready),
        }
        if let Err(error) = self.approvals.approve(syn.pair, syn.sequence) {
            tracing::warn!(client = %syn.pair.client, %error, "a held connection cannot be let in");
            self.send(&packet::refusal(syn.pair, syn.sequence));
            return match self.forget(syn.pair, syn.sequence) {
                Some(ready) => Err(ready),
                None => Ok(()),
            };
        }
        // Were it lost, the client's own next SYN would be let in.
        self.send(&packet::again(syn));
        Ok(())
    }

    /// The application has been accepted. What still waits is another connection over the same two ends.
    pub(super) fn take(&self, pair: Pair) -> Option<R> {
        let sequence = match self.entries.borrow().get(&pair)? {
            Entry {
                state: State::Ready(_),
                sequence,
                ..
            } => *sequence,
            _ => return None,
        };
        self.forget(pair, sequence)
    }

    /// Its socket no longer waits. Returns what was ready for it.
    pub(super) fn gone(&self, pair: Pair, sequence: u32) -> Option<R> {
        let known = self.entries.borrow().get(&pair).map(|e| e.sequence);
        if known != Some(sequence) {
            return None;
        }
        if let Err(error) = self.approvals.withdraw(pair, sequence) {
            tracing::warn!(client = %pair.client, %error, "an approval cannot be taken back");
        }
        self.forget(pair, sequence)
    }

    fn forget(&self, pair: Pair, sequence: u32) -> Option<R> {
        let mut entries = self.entries.borrow_mut();
        if entries.get(&pair)?.sequence != sequence {
            return None;
        }
        let entry = entries.remove(&pair)?;
        let mut destinations = self.destinations.borrow_mut();
        if let Some(count) = destinations.get_mut(&entry.destination) {
            *count -= 1;
            if *count == 0 {
                destinations.remove(&entry.destination);
            }
        }
        // A burst's table is not kept for ever.
        if entries.is_empty() && entries.capacity() > LIMIT / 4 {
            entries.shrink_to_fit();
        }
        match entry.state {
            State::Ready(ready) => Some(ready),
            State::Waiting(_) => None,
        }
    }

    /// Refuses the connection when its walk unwinds: its connect() would wait until the application gives up.
    pub(super) fn refused_on_panic(&self, pair: Pair, sequence: u32) -> OnPanic<impl FnMut()> {
        OnPanic(move || {
            self.send(&packet::refusal(pair, sequence));
            drop(self.gone(pair, sequence));
        })
    }

    /// Entries whose end has been missed.
    pub(super) fn doubtful(&self) -> Vec<(Pair, u32)> {
        let now = Instant::now();
        let mut entries = self.entries.borrow_mut();
        let mut missed = Vec::new();
        for (pair, entry) in entries.iter_mut().filter(|(_, entry)| now - entry.since > DOUBT) {
            let gone = matches!(self.approvals.is_held(*pair, entry.sequence), Ok(false));
            if gone && entry.suspect {
                missed.push((*pair, entry.sequence));
            }
            entry.suspect = gone;
        }
        missed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    /// Everything that is held now.
    pub(super) fn all(&self) -> Vec<(Pair, u32)> {
        let entries = self.entries.borrow();
        entries
            .iter()
            .map(|(pair, entry)| (*pair, entry.sequence))
            .collect()
    }

    pub(super) fn send(&self, packet: &Packet) {
        let sent: io::Result<()> = self.raw.send(packet);
        if let Err(error) = sent {
            tracing::debug!(to = %packet.to, %error, "an answer to a held SYN was not sent");
        }
    }
}

/// A shard's part of the places in the kernel, and of the descriptors.
fn limit(shards: usize, files: usize) -> usize {
    let shards = shards.max(1);
    LIMIT
        .min(HELD_ENTRIES / shards)
        .min(files / DESCRIPTORS / shards)
        .max(1)
}

/// A destination may hold as many connections as there are places left for others. So one flood takes half of the
/// places, two take a third each, and so on.
fn has_room(mine: usize, all: usize, limit: usize) -> bool {
    mine < limit.saturating_sub(all)
}

impl Gone {
    pub(super) async fn wait(&mut self) {
        // Nothing is ever sent: the sender's end is the news.
        let _ = (&mut self.0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shards_together_take_no_more_than_there_is() {
        for shards in [1, 2, 8, 64] {
            let each = limit(shards, 1 << 20);
            assert!(each <= LIMIT && each * shards <= HELD_ENTRIES, "{shards}: {each}");
            assert!(limit(shards, 4096) * shards <= 1024, "few descriptors");
        }
        assert_eq!(limit(64, 16), 1);
    }

    #[test]
    fn a_flood_to_one_destination_leaves_room_for_others() {
        let flood = |floods: usize| {
            let mut held = vec![0; floods];
            loop {
                let before: usize = held.iter().sum();
                for n in 0..floods {
                    if has_room(held[n], held.iter().sum(), LIMIT) {
                        held[n] += 1;
                    }
                }
                if held.iter().sum::<usize>() == before {
                    return held;
                }
            }
        };
        assert_eq!(flood(1), [LIMIT / 2]);
        for floods in [2, 3, 10] {
            let held = flood(floods);
            let all = held.iter().sum::<usize>();
            assert!(has_room(0, all, LIMIT), "{floods} floods leave room: {held:?}");
            assert!(
                held.iter().max().unwrap() - held.iter().min().unwrap() <= 1,
                "{held:?}"
            );
        }
    }
}
