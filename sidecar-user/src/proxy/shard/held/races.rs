//! The races of a held connection: a kernel as a model, which loses events and packets, applications that give up and use
//! their ports again, and proxies that die. Each round is another order of events.
//!
//! Checked at each step: what is approved is not approved already, unless a late SYN has cost it that before; who has its
//! upstream is dialled no other; and nothing grows beyond its bound. Checked at the end:
//! every application has an answer, every dial has ended, every upstream has been used or reset, once, and nothing is left.

use std::collections::{HashMap, HashSet, VecDeque};

use fastrand::Rng;

use super::*;
use crate::intercept::packet::Unreachable;

mod ends;
mod seen;
mod stage;

use ends::{pair, syn};
use seen::Seen;
use stage::Stage;

const ROUNDS: u64 = 4_000;
const STEPS: usize = 120;
/// Few, so that they are used again and again.
const PORTS: u16 = 6;
const LIMIT: usize = 5;
/// Of the kernel's own table, and of a ring.
const PENDING: usize = 5;
const RING: usize = 6;

#[test]
fn every_order_of_events_ends_with_an_answer_for_each_and_leaves_nothing() {
    // Another seed each time, which a failure prints.
    let seed = fastrand::u64(..);
    let mut seen = Seen::default();
    for round in 0..ROUNDS {
        let mut world = World::new(
            Rng::with_seed(seed ^ round),
            format!("seed {seed}, round {round}"),
        );
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        seen.add(&world.seen);
    }
    // A world in which nothing goes wrong would prove little.
    assert!(seen.0.values().all(|n| *n > 5), "{seen:?}");
    assert_eq!(seen.0.len(), 16, "{seen:?}");
}

/// An upstream is known by its number.
type Upstream = usize;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Unused,
    Used,
    Reset,
}

struct World {
    name: String,
    random: Rng,
    now: Instant,
    table: HeldTable<Upstream>,
    closed: bool,
    /// Applications' sockets that wait for their connections, and the sequence numbers of these.
    apps: HashMap<Pair, u32>,
    /// Of the last connection. One that is used again at the same two ends within seconds is not to be expected.
    sequence: u32,
    // The kernel.
    pending: HashMap<Pair, Stage>,
    ring: VecDeque<HeldEvent>,
    backlog: VecDeque<Key>,
    established: HashSet<Key>,
    /// Sent again by the proxy, and arrived after another connection had begun at the same two ends.
    late_syns: HashSet<Key>,
    /// SYNs sent again by the proxy that have not arrived.
    on_the_way: Vec<Key>,
    // The proxy.
    proxy: u32,
    dials: HashMap<Dial, Key>,
    /// Their result was on its way when they were cancelled.
    late: Vec<Dial>,
    upstreams: Vec<(Key, Fate)>,
    /// Whether anything is lost.
    hostile: bool,
    seen: Seen,
}

impl World {
    fn new(random: Rng, name: String) -> Self {
        Self {
            name,
            random,
            now: Instant::now(),
            table: HeldTable::new(LIMIT),
            closed: false,
            apps: HashMap::new(),
            sequence: 0,
            pending: HashMap::new(),
            ring: VecDeque::new(),
            backlog: VecDeque::new(),
            established: HashSet::new(),
            late_syns: HashSet::new(),
            on_the_way: Vec::new(),
            proxy: 0,
            dials: HashMap::new(),
            late: Vec::new(),
            upstreams: Vec::new(),
            hostile: true,
            seen: Seen::default(),
        }
    }

    fn step(&mut self) {
        match self.random.u8(..40) {
            0..8 => self.connect(),
            8..12 => self.retransmit(),
            12..15 => self.give_up(),
            15..24 => self.deliver(),
            24..30 => self.finish_dial(),
            30..32 => self.finish_late_dial(),
            32..35 => self.accept(),
            35..37 => {
                let time = Duration::from_millis(self.random.u64(..3000));
                self.wait(time);
            }
            37..39 => self.arrive(),
            _ if self.random.u8(..8) == 0 => self.replace_proxy(),
            _ => self.closed = self.random.u8(..8) == 0,
        }
    }

    /// Nothing goes wrong any more, and nobody comes or gives up.
    fn settle(&mut self) {
        (self.hostile, self.closed) = (false, false);
        for _ in 0..8 {
            for pair in self.waiting() {
                self.send_syn(pair);
            }
            self.rest();
        }
        assert!(self.apps.is_empty(), "{}: somebody has no answer", self.name);
        // What the kernel no longer holds is noticed at the second look.
        for _ in 0..4 {
            self.wait(LOOK);
            self.rest();
        }
        assert!(self.table.entries.is_empty(), "{}: an entry is left", self.name);
        assert_eq!(self.table.next_timeout(), None, "{}", self.name);
        assert!(self.table.destinations.is_empty(), "{}", self.name);
        assert!(self.dials.is_empty(), "{}: a dial goes on", self.name);
        assert!(self.pending.is_empty(), "{}: {:?}", self.name, self.pending);
        for (number, (_, fate)) in self.upstreams.iter().enumerate() {
            assert_ne!(*fate, Fate::Unused, "{}: upstream {number}", self.name);
        }
    }

    fn rest(&mut self) {
        let busy =
            |w: &Self| w.ring.len() + w.dials.len() + w.late.len() + w.backlog.len() + w.on_the_way.len();
        while busy(self) > 0 {
            self.deliver();
            self.finish_dial();
            self.finish_late_dial();
            self.arrive();
            self.accept();
        }
        self.wait(Duration::from_secs(1));
    }

    fn waiting(&self) -> Vec<Pair> {
        let mut all: Vec<Pair> = self.apps.keys().copied().collect();
        all.sort_by_key(|pair| pair.client);
        all
    }

    fn any_waiting(&mut self) -> Option<Pair> {
        let all = self.waiting();
        self.random.choice(all)
    }

    // What applications and the kernel do.

    fn connect(&mut self) {
        let pair = pair(self.random.u16(..PORTS));
        // Left out is what `accepted` cannot tell apart.
        if self.apps.contains_key(&pair) || self.backlog.iter().any(|key| key.pair == pair) {
            return;
        }
        if self.pending.len() >= PENDING {
            return self.seen.one("no room to connect");
        }
        self.sequence += 1;
        self.apps.insert(pair, self.sequence);
        self.pending.insert(pair, Stage::Published);
        // What the proxy sends again for an earlier one may come first.
        match self.hostile && self.random.u8(..8) == 0 {
            true => self.seen.one("first SYN lost"),
            false => self.send_syn(pair),
        }
    }

    fn retransmit(&mut self) {
        if let Some(pair) = self.any_waiting() {
            self.seen.one("sent again by the client");
            self.send_syn(pair);
        }
    }

    fn send_syn(&mut self, pair: Pair) {
        if let Some(sequence) = self.apps.get(&pair).copied() {
            self.filter(Key { pair, sequence });
        }
    }

    /// The filter of the listener.
    fn filter(&mut self, key: Key) {
        let Key { pair, sequence } = key;
        let Some(before) = self.pending.get(&pair).copied() else {
            self.tell(HeldEvent::Stray { pair, sequence });
            return;
        };
        let current = self.apps.get(&pair).copied();
        if current != Some(sequence) {
            // From there on the kernel takes the two for new in turn.
            let current = current.map(|sequence| Key { pair, sequence });
            self.late_syns.extend(current.into_iter().chain([key]));
        }
        let [held, approved] = self.stages(sequence);
        if before == approved {
            return self.establish(key);
        }
        let told = match before == held {
            true => HeldEvent::Again(syn(key)),
            false => HeldEvent::Held(syn(key)),
        };
        let is_told = self.tell(told);
        let waiting = Stage::Waiting {
            sequence,
            proxy: self.proxy,
            is_told,
        };
        self.pending
            .insert(pair, if before == held { held } else { waiting });
    }

    fn held(&self, pair: Pair) -> Option<u32> {
        self.pending.get(&pair)?.sequence()
    }

    fn establish(&mut self, key: Key) {
        if self.apps.get(&key.pair) != Some(&key.sequence) {
            // An earlier connection's, sent again: the client answers what acknowledges it with a reset.
            return;
        }
        self.pending.remove(&key.pair);
        self.apps.remove(&key.pair);
        self.established.insert(key);
        self.backlog.push_back(key);
    }

    /// As the proxy that serves now knows it, before its approval and after it.
    fn stages(&self, sequence: u32) -> [Stage; 2] {
        let proxy = self.proxy;
        let held = Stage::Waiting {
            sequence,
            proxy,
            is_told: true,
        };
        [held, Stage::Approved { sequence, proxy }]
    }

    fn change(&mut self, pair: Pair, from: Stage, to: Stage) -> bool {
        let stage = self.pending.get_mut(&pair).filter(|stage| **stage == from);
        let found = stage.is_some();
        if let Some(stage) = stage {
            *stage = to;
        }
        found
    }

    /// False: there was no room in the ring.
    fn tell(&mut self, event: HeldEvent) -> bool {
        let has_room = self.ring.len() < RING || !self.hostile;
        match has_room {
            true => self.ring.push_back(event),
            false => self.seen.one("lost event"),
        }
        has_room
    }

    /// An application's socket leaves SYN_SENT unconnected.
    fn close(&mut self, pair: Pair) {
        self.apps.remove(&pair);
        if let Some(sequence) = self.pending.remove(&pair).and_then(Stage::sequence) {
            self.tell(HeldEvent::Gone { pair, sequence });
        }
    }

    fn give_up(&mut self) {
        if let Some(pair) = self.any_waiting() {
            self.seen.one("given up");
            self.close(pair);
        }
    }

    /// A reset or an ICMP message for one SYN.
    fn hear(&mut self, key: Key) {
        let waits = self
            .apps
            .get(&key.pair)
            .is_some_and(|sequence| *sequence == key.sequence);
        if waits && !(self.hostile && self.random.u8(..4) == 0) {
            self.seen.one("refused");
            self.close(key.pair);
        }
    }

    fn arrive(&mut self) {
        if !self.on_the_way.is_empty() {
            let at = self.random.usize(..self.on_the_way.len());
            let key = self.on_the_way.swap_remove(at);
            self.filter(key);
        }
    }

    // What the shard does.

    fn deliver(&mut self) {
        if let Some(event) = self.ring.pop_front() {
            self.table.event(event, self.closed, self.now);
            self.carry_out();
        }
    }

    fn finish_dial(&mut self) {
        let mut all: Vec<Dial> = self.dials.keys().copied().collect();
        all.sort_by_key(|dial| dial.number);
        if let Some(dial) = self.random.choice(all) {
            let key = self.dials.remove(&dial).expect("one of them");
            let result = match self.random.u8(..4) {
                0 => Err(Answer::Refused),
                1 => Err(Answer::Unreachable(Unreachable::Host)),
                _ => Ok(self.upstream(key)),
            };
            self.table.dialed(dial, result, self.now);
            self.carry_out();
        }
    }

    fn finish_late_dial(&mut self) {
        if let Some(dial) = self.late.pop() {
            self.seen.one("late dial");
            let key = Key {
                pair: dial.pair,
                sequence: u32::MAX,
            };
            let upstream = self.upstream(key);
            self.table.dialed(dial, Ok(upstream), self.now);
            self.carry_out();
            assert_eq!(self.upstreams[upstream].1, Fate::Reset, "{}", self.name);
        }
    }

    fn upstream(&mut self, key: Key) -> Upstream {
        self.upstreams.push((key, Fate::Unused));
        self.upstreams.len() - 1
    }

    fn accept(&mut self) {
        let Some(key) = self.backlog.pop_front() else {
            return;
        };
        if let Some(upstream) = self.table.accepted(key.pair) {
            self.seen.one("accepted");
            let (made_for, fate) = &mut self.upstreams[upstream];
            assert_eq!(*made_for, key, "{}", self.name);
            assert_eq!(*fate, Fate::Unused, "{}", self.name);
            *fate = Fate::Used;
        } else {
            self.seen.one("accepted without an entry");
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        if self.table.next_timeout().is_some_and(|at| at <= self.now) {
            self.table.timeout(self.now);
            self.carry_out();
        }
    }

    /// The proxy ends, in order or not, and another begins with what the kernel has.
    fn replace_proxy(&mut self) {
        if self.random.bool() {
            self.seen.one("proxy ended");
            self.table.end();
            self.carry_out();
            assert!(
                self.table.entries.is_empty() && self.dials.is_empty(),
                "{}",
                self.name
            );
        } else {
            self.seen.one("proxy killed");
            // Its sockets go with it.
            self.dials.clear();
            for (_, fate) in &mut self.upstreams {
                *fate = Fate::Reset;
            }
        }
        self.proxy += 1;
        self.table = HeldTable::new(LIMIT);
        self.late.clear();
        self.ring.clear();
        self.backlog.clear();
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.table.effect() {
            match effect {
                Effect::Dial(dial, syn) => {
                    let key = Key::of(&syn);
                    let is_over = self.established.contains(&key) && !self.late_syns.contains(&key);
                    assert!(!is_over, "{}: it has its upstream", self.name);
                    assert!(self.dials.insert(dial, key).is_none(), "{}", self.name);
                }
                Effect::Cancel(dial) => {
                    self.seen.one("cancelled");
                    assert!(self.dials.remove(&dial).is_some(), "{}", self.name);
                    self.late.push(dial);
                }
                Effect::Look(key) => {
                    let held = self.held(key.pair);
                    self.table.looked(key, held == Some(key.sequence));
                }
                Effect::Recall(syn) => {
                    self.seen.one("told again of one without an entry");
                    if self.held(syn.pair) == Some(syn.sequence) {
                        self.table.held(syn, self.closed, self.now);
                    }
                }
                Effect::Approve(syn) => self.approve(Key::of(&syn)),
                Effect::Withdraw(key) => {
                    let [held, approved] = self.stages(key.sequence);
                    self.change(key.pair, approved, held);
                }
                Effect::Answer(syn, _) => self.hear(Key::of(&syn)),
                Effect::Reset(upstream) => {
                    let fate = &mut self.upstreams[upstream].1;
                    assert_eq!(*fate, Fate::Unused, "{}: reset twice", self.name);
                    *fate = Fate::Reset;
                }
                Effect::TurnAway(syn, _) => {
                    self.seen.one("turned away");
                    self.hear(Key::of(&syn));
                }
                Effect::Stray(key) => self.hear(key),
            }
        }
        let entries = self.table.entries.len();
        assert!(entries <= LIMIT, "{}", self.name);
        assert!(self.dials.len() <= entries, "{}: a dial of nobody", self.name);
        let counted: usize = self.table.destinations.values().sum();
        assert_eq!(counted, entries, "{}", self.name);
    }

    fn approve(&mut self, key: Key) {
        let [held, approved] = self.stages(key.sequence);
        let twice = self.pending.get(&key.pair) == Some(&approved);
        if twice && self.late_syns.contains(&key) {
            return self.filter(key);
        }
        assert!(!twice, "{}: approved twice", self.name);
        if self.hostile && self.random.u8(..16) == 0 {
            self.seen.one("could not be approved");
            self.table.approval_failed(key, self.now);
            return;
        }
        if !self.change(key.pair, held, approved) {
            self.seen.one("over when it was approved");
            self.table.not_held(key);
            return;
        }
        match self.hostile && self.random.u8(..4) == 0 {
            true => self.on_the_way.push(key),
            false => self.filter(key),
        }
    }
}
