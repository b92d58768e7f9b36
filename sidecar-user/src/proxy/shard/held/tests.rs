//! Facts about the table of held SYNs, each a story of few events.

use super::*;
use crate::intercept::packet::Unreachable;
use crate::model::OriginalDst;

const A: u16 = 1;
const B: u16 = 2;

struct Story {
    table: HeldTable<&'static str>,
    now: Instant,
}

impl Story {
    fn new() -> Self {
        Self {
            table: HeldTable::new(8),
            now: Instant::now(),
        }
    }

    fn event(&mut self, event: HeldEvent) -> Vec<Effect<&'static str>> {
        self.table.event(event, false, self.now);
        self.effects()
    }

    /// The dial of a SYN that is new.
    fn begins(&mut self, port: u16, sequence: u32) -> Dial {
        match &self.event(HeldEvent::Held(syn(port, sequence)))[..] {
            [.., Effect::Dial(dial, _)] => *dial,
            other => panic!("{other:?}"),
        }
    }

    fn dialed(&mut self, dial: Dial, result: Result<&'static str, Answer>) -> Vec<Effect<&'static str>> {
        self.table.dialed(dial, result, self.now);
        self.effects()
    }

    fn looked(&mut self, port: u16, sequence: u32, held: bool) -> Vec<Effect<&'static str>> {
        self.table.looked(key(port, sequence), held);
        self.effects()
    }

    /// A SYN whose upstream is up, and which may pass.
    fn approves(&mut self, port: u16, sequence: u32, upstream: &'static str) {
        let dial = self.begins(port, sequence);
        let approved = self.dialed(dial, Ok(upstream));
        assert_eq!(approved, [Effect::Approve(Rc::new(syn(port, sequence)))]);
    }

    fn after(&mut self, time: Duration) -> Vec<Effect<&'static str>> {
        self.now += time;
        self.table.timeout(self.now);
        self.effects()
    }

    fn effects(&mut self) -> Vec<Effect<&'static str>> {
        std::iter::from_fn(|| self.table.effect()).collect()
    }
}

fn syn(port: u16, sequence: u32) -> HeldSyn {
    HeldSyn {
        pair: Pair {
            client: ([127, 0, 0, 1], port).into(),
            listener: ([127, 0, 0, 1], 15_001).into(),
        },
        sequence,
        original_dst: OriginalDst::new(([192, 0, 2, 1], 80).into()),
        source: None,
        device: None,
        traffic_class: 0,
        header: Vec::new(),
    }
}

fn key(port: u16, sequence: u32) -> Key {
    Key::of(&syn(port, sequence))
}

fn gone(port: u16, sequence: u32) -> HeldEvent {
    let Key { pair, sequence } = key(port, sequence);
    HeldEvent::Gone { pair, sequence }
}

#[test]
fn an_accepted_application_gets_the_upstream_that_was_dialed_for_it() {
    let mut story = Story::new();
    story.approves(A, 1, "a");
    story.approves(B, 1, "b");
    assert_eq!(story.table.accepted(key(B, 1).pair), Some("b"));
    assert_eq!(story.table.accepted(key(B, 1).pair), None, "once");
    assert_eq!(story.table.accepted(key(A, 1).pair), Some("a"));
    assert_eq!(story.table.next_timeout(), None, "nothing is left to do");
}

#[test]
fn a_syn_that_comes_again_is_neither_dialed_nor_approved_again() {
    let mut story = Story::new();
    let dial = story.begins(A, 1);
    assert_eq!(story.event(HeldEvent::Again(syn(A, 1))), []);
    story.dialed(dial, Ok("a"));
    assert_eq!(story.event(HeldEvent::Again(syn(A, 1))), []);
    assert_eq!(story.looked(A, 1, true), []);
}

#[test]
fn a_syn_that_comes_again_and_has_no_entry_is_looked_up_before_it_is_dialed() {
    let mut story = Story::new();
    assert_eq!(
        story.event(HeldEvent::Again(syn(A, 1))),
        [Effect::Recall(syn(A, 1))]
    );
    story.table.held(syn(A, 1), false, story.now);
    assert!(matches!(story.effects()[..], [Effect::Dial(..)]));
}

#[test]
fn a_connection_that_has_lost_its_approval_is_approved_again() {
    let mut story = Story::new();
    story.approves(A, 1, "a");
    assert_eq!(
        story.event(HeldEvent::Held(syn(A, 1))),
        [Effect::Approve(Rc::new(syn(A, 1)))]
    );
}

#[test]
fn who_gives_up_while_his_upstream_is_dialed_cancels_the_dial() {
    let mut story = Story::new();
    let dial = story.begins(A, 1);
    assert_eq!(story.event(gone(A, 2)), [], "another connection's end");
    assert_eq!(story.event(gone(A, 1)), [Effect::Cancel(dial)]);
    assert_eq!(story.dialed(dial, Ok("late")), [Effect::Reset("late")]);
}

#[test]
fn a_late_dial_is_not_used_for_the_same_syn_that_has_come_again() {
    let mut story = Story::new();
    let first = story.begins(A, 1);
    story.event(gone(A, 1));
    let second = story.begins(A, 1);
    assert_ne!(first, second);
    assert_eq!(story.dialed(first, Ok("late")), [Effect::Reset("late")]);
    let approved = [Effect::Approve(Rc::new(syn(A, 1)))];
    assert_eq!(story.dialed(second, Ok("a")), approved);
}

#[test]
fn a_syn_that_the_kernel_no_longer_holds_is_not_sent_again() {
    let mut story = Story::new();
    story.approves(A, 1, "a");
    story.table.not_held(key(A, 1));
    assert_eq!(story.effects(), [Effect::Reset("a")]);
    assert_eq!(story.table.next_timeout(), None, "nothing is left to do");
}

/// The kernel has the approval no more: it was for the connection before.
#[test]
fn two_ends_that_are_used_again_end_what_was_approved_for_them() {
    let mut story = Story::new();
    story.approves(A, 1, "a");
    let effects = story.event(HeldEvent::Held(syn(A, 2)));
    assert!(
        matches!(&effects[..], [Effect::Reset("a"), Effect::Dial(..)]),
        "{effects:?}"
    );
    assert_eq!(story.table.accepted(key(A, 2).pair), None, "it is not approved");
}

#[test]
fn what_cannot_be_approved_is_refused() {
    let mut story = Story::new();
    story.approves(A, 1, "a");
    story.table.approval_failed(key(A, 1), story.now);
    assert_eq!(
        story.effects(),
        [
            Effect::Reset("a"),
            Effect::Answer(Rc::new(syn(A, 1)), Answer::Refused)
        ]
    );
}

#[test]
fn an_answer_is_repeated_until_the_application_has_heard() {
    let answer = Answer::Unreachable(Unreachable::Host);
    let told = [Effect::Answer(Rc::new(syn(A, 1)), answer)];
    let mut story = Story::new();
    let dial = story.begins(A, 1);
    assert_eq!(story.dialed(dial, Err(answer)), told);
    for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 256] {
        let pause = Duration::from_millis(pause);
        assert_eq!(story.table.next_timeout(), Some(story.now + pause));
        assert_eq!(story.after(pause), told);
    }
    assert_eq!(story.event(gone(A, 1)), []);
    assert_eq!(story.table.next_timeout(), None);
}

/// It leaves the kernel's table a moment before it is accepted, so that one look is not enough.
#[test]
fn an_end_that_was_not_told_is_found_at_the_second_look() {
    let mut story = Story::new();
    let dial = story.begins(A, 1);
    let look = [Effect::Look(key(A, 1))];
    assert_eq!(story.after(LOOK), look);
    assert_eq!(story.looked(A, 1, false), []);
    assert_eq!(story.after(LOOK), look);
    assert_eq!(story.looked(A, 1, true), [], "it is there after all");
    for _ in 0..2 {
        assert_eq!(story.after(LOOK), look);
        assert_eq!(story.table.entries.len(), 1);
        story.table.looked(key(A, 1), false);
    }
    assert_eq!(story.effects(), [Effect::Cancel(dial)]);
}

#[test]
fn newcomers_are_refused_when_the_proxy_closes_and_who_waits_already_is_not() {
    let mut story = Story::new();
    story.begins(A, 1);
    let mut closed = |syn| {
        story.table.event(HeldEvent::Held(syn), true, story.now);
        story.effects()
    };
    assert_eq!(closed(syn(A, 1)), []);
    assert_eq!(closed(syn(B, 1)), [Effect::TurnAway(syn(B, 1), Reason::Closed)]);
}

#[test]
fn the_end_refuses_everybody_and_keeps_nothing() {
    let mut story = Story::new();
    story.approves(A, 1, "a");
    let dial = story.begins(B, 1);
    story.table.end();
    let effects = story.effects();
    for port in [A, B] {
        let refused = Effect::Answer(Rc::new(syn(port, 1)), Answer::Refused);
        assert!(effects.contains(&refused), "{effects:?}");
    }
    for effect in [
        Effect::Withdraw(key(A, 1)),
        Effect::Reset("a"),
        Effect::Cancel(dial),
    ] {
        assert!(effects.contains(&effect), "{effects:?}");
    }
    assert_eq!(story.table.next_timeout(), None);
}

#[test]
fn a_flood_to_one_destination_leaves_room_for_others() {
    const LIMIT: usize = 4096;
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
