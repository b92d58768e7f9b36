//! The table of held SYNs of one shard, as a machine without sockets: events go in with the time, effects come out.
//!
//! Sends nothing, asks nobody and owns no timer: [`super::holding`] carries out the effects. It does so in their order,
//! and before it hands in the next event, so that an answer of the kernel is not older than the decision that it decides.
//! `U` is the upstream that a held application gets.
//!
//! ```text
//!   SYN ──▶ Dialing ──dialed──▶ Approved ──accepted──▶ (the application has the upstream)
//!              │                   │
//!              ├── gone, or its two ends are used again, or not held when it is approved ──▶ (dial cancelled, or upstream reset)
//!              └──failed──▶ Refused ──gone──▶ (forgotten)
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::outcome::Answer;
use crate::model::{HeldEvent, HeldSyn, Pair};

/// The event of a connection's end is lost when the ring is full, so entries are looked up in the kernel this often.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// An ICMP message is lost while connect() holds its socket: sent again after 1 ms, 2 ms and so on, up to the second.
const ICMP_REPEAT: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(256)];
/// A refusal waits in the socket's backlog instead, and is repeated only against the unforeseen.
const REFUSAL_REPEAT: Duration = Duration::from_secs(1);

pub(super) struct HeldTable<U> {
    limit: usize,
    entries: HashMap<Pair, Entry<U>>,
    /// Entries for each destination.
    destinations: HashMap<IpAddr, usize>,
    effects: VecDeque<Effect<U>>,
    /// When answers are repeated. What an entry that is gone has left here is skipped.
    repeats: BinaryHeap<Reverse<(Instant, u64, Pair)>>,
    /// While there are entries.
    look: Option<Instant>,
    next: u64,
}

struct Entry<U> {
    syn: Rc<HeldSyn>,
    number: u64,
    since: Instant,
    /// The kernel did not hold it at the last look. It leaves there a moment before it is accepted here.
    suspect: bool,
    state: State<U>,
}

/// What an entry waits for.
enum State<U> {
    /// For its upstream.
    Dialing,
    /// For the application to be accepted.
    Approved(U),
    /// For the application to have heard.
    Refused { answer: Answer, pause: Duration },
}

/// One dial for one SYN. A SYN that comes again after its entry is gone gets another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Dial {
    pub(super) pair: Pair,
    number: u64,
}

/// One SYN. The two ends alone name every connection that ever uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) pair: Pair,
    pub(super) sequence: u32,
}

impl Key {
    pub(super) fn of(syn: &HeldSyn) -> Self {
        Self {
            pair: syn.pair,
            sequence: syn.sequence,
        }
    }
}

/// What the shard has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect<U> {
    /// Look for an upstream, and hand the result to [`HeldTable::dialed`].
    Dial(Dial, Rc<HeldSyn>),
    /// Its result is not wanted any more.
    Cancel(Dial),
    /// Ask whether the kernel still holds this SYN, and hand the answer to [`HeldTable::looked`].
    Look(Key),
    /// Ask whether the kernel still holds this SYN, which has no entry, and if so, hand it to [`HeldTable::held`].
    Recall(HeldSyn),
    /// Let this SYN pass, and send it again. Where the kernel does not hold it any more, [`HeldTable::not_held`]; where it
    /// cannot be asked, [`HeldTable::approval_failed`].
    Approve(Rc<HeldSyn>),
    /// Take an approval back: the kernel still has it, and who it was for is to be refused. Others end with their connection.
    Withdraw(Key),
    Answer(Rc<HeldSyn>, Answer),
    /// Nobody will use this upstream, and its far side is to know that.
    Reset(U),
    /// Refuse a SYN that has no entry, and record why.
    TurnAway(HeldSyn, Reason),
    /// Refuse a SYN that nobody redirected, and record that.
    Stray(Key),
}

/// Why a SYN gets no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Newcomers are refused.
    Closed,
    NoRoom,
}

impl<U> HeldTable<U> {
    /// Holds `limit` connections at most.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            entries: HashMap::new(),
            destinations: HashMap::new(),
            effects: VecDeque::new(),
            repeats: BinaryHeap::new(),
            look: None,
            next: 0,
        }
    }

    /// The next thing to do.
    pub(super) fn effect(&mut self) -> Option<Effect<U>> {
        self.effects.pop_front()
    }

    /// When [`Self::timeout`] is to be called next.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let repeat = self.repeats.peek().map(|Reverse((at, ..))| *at);
        [repeat, self.look].into_iter().flatten().min()
    }

    /// The kernel has told something. `closed`: newcomers are refused.
    pub(super) fn event(&mut self, event: HeldEvent, closed: bool, now: Instant) {
        match event {
            HeldEvent::Held(syn) => self.held(syn, closed, now),
            // A retransmission, sent before its entry was decided. Each later one passes the filter by itself.
            HeldEvent::Again(syn) if self.is_known(&syn) => {}
            // Refused, or lost by us; or accepted meanwhile, and then another upstream would be one too many.
            HeldEvent::Again(syn) => self.effects.push_back(Effect::Recall(syn)),
            HeldEvent::Stray { pair, sequence } => {
                self.effects.push_back(Effect::Stray(Key { pair, sequence }));
            }
            HeldEvent::Gone { pair, sequence } => self.gone(Key { pair, sequence }),
        }
    }

    fn is_known(&self, syn: &HeldSyn) -> bool {
        self.entries
            .get(&syn.pair)
            .is_some_and(|entry| entry.key() == Key::of(syn))
    }

    /// The kernel holds this SYN, for the first time or still.
    pub(super) fn held(&mut self, syn: HeldSyn, closed: bool, now: Instant) {
        let pair = syn.pair;
        match self.entries.get(&pair) {
            Some(known) if known.key() == Key::of(&syn) => {
                if matches!(known.state, State::Approved(_)) {
                    // A SYN that was sent again for an earlier connection of these two ends has come late, and has cost this
                    // one its approval.
                    self.effects.push_back(Effect::Approve(known.syn.clone()));
                }
                return;
            }
            // The two ends are used again, so the earlier connection is over, and its end was not told.
            Some(earlier) => self.gone(earlier.key()),
            None => {}
        }
        if closed {
            return self.effects.push_back(Effect::TurnAway(syn, Reason::Closed));
        }
        let destination = destination(&syn);
        let mine = self.destinations.get(&destination).copied().unwrap_or_default();
        if !has_room(mine, self.entries.len(), self.limit) {
            return self.effects.push_back(Effect::TurnAway(syn, Reason::NoRoom));
        }
        *self.destinations.entry(destination).or_default() += 1;
        self.look.get_or_insert(now + LOOK);
        self.next += 1;
        let entry = Entry {
            syn: Rc::new(syn),
            number: self.next,
            since: now,
            suspect: false,
            state: State::Dialing,
        };
        self.effects
            .push_back(Effect::Dial(entry.dial(), entry.syn.clone()));
        self.entries.insert(pair, entry);
    }

    /// A dial has ended. Its entry may be gone, and another may have its two ends and even its sequence number.
    pub(super) fn dialed(&mut self, dial: Dial, result: Result<U, Answer>, now: Instant) {
        let entry = self.entries.get_mut(&dial.pair);
        let entry = entry.filter(|e| e.number == dial.number && matches!(e.state, State::Dialing));
        match (entry, result) {
            (Some(entry), Ok(upstream)) => {
                entry.state = State::Approved(upstream);
                self.effects.push_back(Effect::Approve(entry.syn.clone()));
            }
            (Some(_), Err(answer)) => self.refuse(dial.pair, answer, now),
            (None, Ok(upstream)) => self.effects.push_back(Effect::Reset(upstream)),
            (None, Err(_)) => {}
        }
    }

    /// The kernel still holds that SYN, or does not.
    pub(super) fn looked(&mut self, key: Key, held: bool) {
        let Some(entry) = self.entries.get_mut(&key.pair).filter(|e| e.key() == key) else {
            return;
        };
        if !held && entry.suspect {
            return self.gone(key);
        }
        entry.suspect = !held;
    }

    /// What was to be approved is over, and news of its end may be lost. Sent again, its SYN would open the next connection
    /// that uses its two ends.
    pub(super) fn not_held(&mut self, key: Key) {
        self.gone(key);
    }

    /// The kernel cannot let that SYN pass.
    pub(super) fn approval_failed(&mut self, key: Key, now: Instant) {
        if self.entries.get(&key.pair).is_some_and(|e| e.key() == key) {
            self.refuse(key.pair, Answer::Refused, now);
        }
    }

    /// The application has been accepted: the upstream that it was approved for. What still waits at the same two ends is
    /// another connection. A connection that was reset in the backlog, and whose two ends were used again before it is
    /// accepted, takes the upstream of the next one, which is dialed anew when it is accepted: to ask the kernel which of
    /// the two this is would cost every connection a system call.
    pub(super) fn accepted(&mut self, pair: Pair) -> Option<U> {
        let entry = self.entries.get(&pair)?;
        if !matches!(entry.state, State::Approved(_)) {
            return None;
        }
        match self.remove(pair)?.state {
            State::Approved(upstream) => Some(upstream),
            _ => None,
        }
    }

    /// Its time has come: answers are repeated, and entries of some age looked up.
    pub(super) fn timeout(&mut self, now: Instant) {
        while let Some(Reverse((at, number, pair))) = self.repeats.peek().copied()
            && at <= now
        {
            self.repeats.pop();
            let entry = self.entries.get_mut(&pair).filter(|e| e.number == number);
            if let Some(entry) = entry
                && let State::Refused { answer, pause } = &mut entry.state
            {
                *pause = (*pause * 2).min(repeat(*answer)[1]);
                self.repeats.push(Reverse((now + *pause, number, pair)));
                self.effects.push_back(Effect::Answer(entry.syn.clone(), *answer));
            }
        }
        if self.look.is_some_and(|look| look <= now) {
            self.look = Some(now + LOOK);
            let old = self
                .entries
                .values()
                .filter(|e| now.duration_since(e.since) >= LOOK);
            self.effects.extend(old.map(|entry| Effect::Look(entry.key())));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The proxy ends: nobody is kept waiting for it.
    pub(super) fn end(&mut self) {
        let all: Vec<Key> = self.entries.values().map(Entry::key).collect();
        for key in all {
            if let Some(entry) = self.entries.get(&key.pair) {
                // Its next SYN is not to find a proxy that accepts and has nobody to give it to.
                if matches!(entry.state, State::Approved(_)) {
                    self.effects.push_back(Effect::Withdraw(key));
                }
                let answer = Effect::Answer(entry.syn.clone(), Answer::Refused);
                self.effects.push_back(answer);
            }
            self.gone(key);
        }
    }

    /// Its socket waits no longer.
    fn gone(&mut self, key: Key) {
        if self.entries.get(&key.pair).is_none_or(|e| e.key() != key) {
            return;
        }
        if let Some(entry) = self.remove(key.pair) {
            let dial = entry.dial();
            self.give_up(dial, entry.state);
        }
    }

    fn refuse(&mut self, pair: Pair, answer: Answer, now: Instant) {
        let Some(entry) = self.entries.get_mut(&pair) else {
            return;
        };
        let (dial, pause) = (entry.dial(), repeat(answer)[0]);
        let before = std::mem::replace(&mut entry.state, State::Refused { answer, pause });
        let answer = Effect::Answer(entry.syn.clone(), answer);
        // Its dial has ended.
        if !matches!(before, State::Dialing) {
            self.give_up(dial, before);
        }
        self.effects.push_back(answer);
        self.repeats.push(Reverse((now + pause, dial.number, pair)));
    }

    /// What an entry had is not wanted any more.
    fn give_up(&mut self, dial: Dial, state: State<U>) {
        match state {
            State::Dialing => self.effects.push_back(Effect::Cancel(dial)),
            State::Approved(upstream) => self.effects.push_back(Effect::Reset(upstream)),
            State::Refused { .. } => {}
        }
    }

    fn remove(&mut self, pair: Pair) -> Option<Entry<U>> {
        let entry = self.entries.remove(&pair)?;
        let destination = destination(&entry.syn);
        if let Some(count) = self.destinations.get_mut(&destination) {
            *count -= 1;
            if *count == 0 {
                self.destinations.remove(&destination);
            }
        }
        if self.entries.is_empty() {
            self.look = None;
            self.repeats.clear();
            // The memory of a burst is given back.
            if self.entries.capacity() > self.limit / 4 {
                self.entries.shrink_to_fit();
                self.repeats.shrink_to_fit();
                self.effects.shrink_to(0);
            }
        }
        Some(entry)
    }
}

impl<U> Entry<U> {
    fn key(&self) -> Key {
        Key::of(&self.syn)
    }

    fn dial(&self) -> Dial {
        Dial {
            pair: self.syn.pair,
            number: self.number,
        }
    }
}

fn destination(syn: &HeldSyn) -> IpAddr {
    syn.original_dst.0.ip()
}

/// The first pause before an answer is repeated, and the longest.
fn repeat(answer: Answer) -> [Duration; 2] {
    match answer {
        Answer::Refused => [REFUSAL_REPEAT; 2],
        Answer::Unreachable(_) => ICMP_REPEAT,
    }
}

/// A destination may hold as many connections as there are places left for others. So one flood takes half of the
/// places, two take a third each, and so on.
fn has_room(mine: usize, all: usize, limit: usize) -> bool {
    mine < limit.saturating_sub(all)
}

#[cfg(test)]
mod races;
#[cfg(test)]
mod tests;
