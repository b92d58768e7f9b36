//! What passes through one tunnel, and what of it waits in memory: for applications that are slow to read, and for the
//! tunnel's own socket. Decides when to read no more, how much streams may send, and when the peer is flooding.
//!
//! The HTTP/2 layer keeps both queues and shows neither; the frame heads on the way in and out tell what it has. Does not
//! drive the connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::flood::{Flood, Gate};
use super::frames::{Frame, Kind, Walk};
use crate::budget::{Budget, Held};
use crate::model::tcp::TunnelSocket;

/// Per stream, while few are open: `limit` below makes it smaller. Credit is returned only after the bytes were
/// written to the application's socket, so this is also what one stream can make us buffer.
pub(super) const STREAM_WINDOW: u32 = 512 * 1024;
/// With 200 streams that nobody reads a tunnel then holds 3.2 MB. One frame of the usual size fits.
pub(super) const MIN_STREAM_WINDOW: u32 = 16 * 1024;
/// Frames taken in before the streams that they belong to, and whoever else waits on this thread, get their turn. It
/// bounds what the HTTP/2 layer piles up in between: small DATA frames, requests that are reset at once.
pub(super) const TURN: u32 = 1024;

/// All streams of a tunnel together are promised no more than this, and no more than the tunnel's share of the budget: 24
/// streams have the full window, 200 have 64 KiB each. Enough for bulk on a few streams, and no more than a pod can spare
/// for one peer.
const PROMISE: usize = 24 * STREAM_WINDOW as usize;
/// A window that was made small stays so for a while: each change is a SETTINGS frame, and some peers count those.
const REGROW: Duration = Duration::from_secs(1);

/// What may wait for the tunnel's socket. A socket buffer takes up to 4 MB besides, so that more only adds delay.
const QUEUE: usize = 1 << 20;
const LEAST_QUEUE: usize = 64 * 1024;
/// The same in pieces: a piece of one byte takes some 300 bytes in the queue.
const QUEUE_PIECES: usize = 4096;

/// Shared by the tunnel's socket, its driver and its streams.
#[derive(Clone, Debug)]
pub(super) struct Traffic(Rc<RefCell<State>>, Rc<TunnelSocket>);

#[derive(Debug)]
struct State {
    arriving: Walk,
    leaving: Walk,
    gate: Gate,
    flood: Option<Flood>,
    /// Frames that may still be read in this turn.
    turn: u32,
    streams: HashMap<u32, Counts>,
    open: usize,
    /// Received, and not yet taken by an application.
    held: Held,
    /// Handed over to be sent, and not yet taken by the socket.
    queued: Held,
    pieces: usize,
    /// Streams that wait for the queue to shrink. They register once in each round.
    senders: Vec<Waker>,
    round: u64,
    window: u32,
    changed: Instant,
    /// Ended by us, because its peer is not believed any more.
    distrusted: bool,
}

#[derive(Debug, Default)]
struct Counts {
    held: usize,
    queued: usize,
    /// Its owner is gone; what is queued still goes out.
    closed: bool,
}

/// One stream's part in the traffic, until it is dropped.
#[derive(Debug)]
pub(super) struct Tracked {
    traffic: Traffic,
    id: u32,
    round: u64,
}

impl Traffic {
    /// `preface`: what arrives before the first frame, and what leaves before it.
    pub(super) fn new(budget: &Budget, preface: (usize, usize), now: Instant) -> Self {
        let state = Rc::new(RefCell::new(State {
            arriving: Walk::after(preface.0),
            leaving: Walk::after(preface.1),
            gate: Gate::new(now),
            flood: None,
            turn: TURN,
            streams: HashMap::new(),
            open: 0,
            held: budget.holder(),
            queued: budget.holder(),
            pieces: 0,
            senders: Vec::new(),
            round: 1,
            window: STREAM_WINDOW,
            changed: now,
            distrusted: false,
        }));
        Self(state, Rc::default())
    }

    pub(super) fn socket(&self) -> &Rc<TunnelSocket> {
        &self.1
    }

    /// A stream that has `held` bytes already.
    pub(super) fn track(&self, id: u32, held: usize) -> Tracked {
        let mut state = self.0.borrow_mut();
        state.open += 1;
        state.held.add(held);
        state.streams.insert(
            id,
            Counts {
                held,
                ..Counts::default()
            },
        );
        Tracked {
            traffic: self.clone(),
            id,
            round: 0,
        }
    }

    pub(super) fn distrust(&self) {
        self.0.borrow_mut().distrusted = true;
    }

    pub(super) fn flood(&self) -> Option<Flood> {
        self.0.borrow().flood
    }

    /// May the socket be read? Not when the turn is over or the peer floods, which the driver sees at the end of its turn;
    /// and not when the budget is used up and the tunnel has a part in it: then the caller is woken when that changes.
    pub(super) fn may_read(&self, cx: &Context<'_>) -> bool {
        let state = self.0.borrow();
        if state.turn == 0 || state.flood.is_some() {
            return false;
        }
        let budget = state.held.budget();
        if !budget.must_wait(state.held.bytes()) {
            return true;
        }
        budget.wake_when_freed(cx.waker());
        // It may have been given back just now, before there was anybody to wake.
        !budget.must_wait(state.held.bytes())
    }

    pub(super) fn arrived(&self, bytes: &[u8]) {
        let state = &mut *self.0.borrow_mut();
        let State {
            arriving,
            gate,
            flood,
            turn,
            streams,
            held,
            ..
        } = state;
        let mut reset = Vec::new();
        arriving.feed(bytes, |frame| {
            *turn = turn.saturating_sub(1);
            if let Err(kind) = gate.admit(&frame, Instant::now) {
                flood.get_or_insert(kind);
            }
            match frame.kind {
                Kind::Data if frame.len > 0 => {
                    if let Some(counts) = streams.get_mut(&frame.stream)
                        && !counts.closed
                    {
                        counts.held += frame.len;
                        held.add(frame.len);
                    }
                }
                Kind::Reset => reset.push(frame.stream),
                _ => {}
            }
        });
        for id in reset {
            state.dequeue_all(id);
        }
    }

    pub(super) fn left(&self, bytes: &[u8]) {
        let state = &mut *self.0.borrow_mut();
        let mut leaving = std::mem::replace(&mut state.leaving, Walk::after(0));
        leaving.feed(bytes, |frame| state.leaves(&frame));
        state.leaving = leaving;
        if !state.senders.is_empty() && state.has_room() {
            state.round += 1;
            for waker in state.senders.drain(..) {
                waker.wake();
            }
        }
    }

    /// The driver waits now. It is polled again at once when there is more to read, or a window to be told, which `resize`
    /// does: it is refused while the change before is not acknowledged, and the next turn asks again.
    pub(super) fn end_turn(&self, cx: &Context<'_>, resize: impl FnOnce(u32) -> bool) {
        let (again, window) = self.turn_over();
        let resized = window.filter(|window| resize(*window));
        if let Some(window) = resized {
            let state = &mut *self.0.borrow_mut();
            (state.window, state.changed) = (window, Instant::now());
        }
        if again || resized.is_some() {
            cx.waker().wake_by_ref();
        }
    }

    /// Whether the turn was cut short, and the window that streams should have when it is to change.
    fn turn_over(&self) -> (bool, Option<u32>) {
        let state = &mut *self.0.borrow_mut();
        let again = state.turn == 0;
        state.turn = TURN;
        (again, state.window_change())
    }
}

impl State {
    fn leaves(&mut self, frame: &Frame) {
        match frame.kind {
            Kind::Data => {
                let Some(counts) = self.streams.get_mut(&frame.stream) else {
                    return;
                };
                let sent = frame.len.min(counts.queued);
                counts.queued -= sent;
                let over = counts.closed && (counts.queued == 0 || frame.has_first_flag());
                self.queued.sub(sent);
                if over {
                    self.dequeue_all(frame.stream);
                }
                if self.queued.bytes() == 0 {
                    self.pieces = 0;
                }
            }
            // With it goes what was queued.
            Kind::Reset => self.dequeue_all(frame.stream),
            _ => {}
        }
    }

    /// The stream is over: the HTTP/2 layer has thrown away what it had to send.
    fn dequeue_all(&mut self, id: u32) {
        let Some(counts) = self.streams.get_mut(&id) else {
            return;
        };
        let queued = std::mem::take(&mut counts.queued);
        if counts.closed {
            self.streams.remove(&id);
        }
        self.queued.sub(queued);
        if self.queued.bytes() == 0 {
            self.pieces = 0;
        }
    }

    fn has_room(&self) -> bool {
        let limit = self.held.budget().tunnel_share().clamp(LEAST_QUEUE, QUEUE);
        self.queued.bytes() < limit && self.pieces < QUEUE_PIECES
    }

    fn window_change(&self) -> Option<u32> {
        let share = self.held.budget().tunnel_share().min(PROMISE);
        let each = (share / self.open.max(1)).clamp(MIN_STREAM_WINDOW as usize, STREAM_WINDOW as usize);
        // A power of two, so that not each stream more or less is a change.
        let wanted = 1_u32 << each.ilog2();
        let is_due = wanted < self.window || (wanted > self.window && self.changed.elapsed() > REGROW);
        is_due.then_some(wanted)
    }
}

impl Tracked {
    /// An application has taken so much.
    pub(super) fn consumed(&self, n: usize) {
        let mut state = self.traffic.0.borrow_mut();
        if let Some(counts) = state.streams.get_mut(&self.id) {
            let n = n.min(counts.held);
            counts.held -= n;
            state.held.sub(n);
        }
    }

    pub(super) fn socket(&self) -> Rc<TunnelSocket> {
        self.traffic.socket().clone()
    }

    pub(super) fn is_distrusted(&self) -> bool {
        self.traffic.0.borrow().distrusted
    }

    /// Ready when the tunnel takes more to send.
    pub(super) fn poll_room(&mut self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.traffic.0.borrow_mut();
        if state.has_room() {
            return Poll::Ready(());
        }
        if self.round != state.round {
            self.round = state.round;
            state.senders.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// So much was handed over to be sent.
    pub(super) fn queued(&self, n: usize) {
        let mut state = self.traffic.0.borrow_mut();
        if let Some(counts) = state.streams.get_mut(&self.id) {
            counts.queued += n;
            state.queued.add(n);
            state.pieces += 1;
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let state = &mut *self.traffic.0.borrow_mut();
        state.open -= 1;
        let Some(counts) = state.streams.get_mut(&self.id) else {
            return;
        };
        let held = std::mem::take(&mut counts.held);
        counts.closed = true;
        if counts.queued == 0 {
            state.streams.remove(&self.id);
        }
        state.held.sub(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, len: usize) -> Vec<u8> {
        let mut bytes = (len as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(vec![0; len]);
        bytes
    }

    fn data(stream: u32, len: usize) -> Vec<u8> {
        frame(0, 0, stream, len)
    }

    fn traffic(total: usize) -> (Budget, Traffic) {
        let budget = Budget::new(total);
        let traffic = Traffic::new(&budget, (0, 0), Instant::now());
        (budget, traffic)
    }

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn what_waits_is_known_to_the_byte_and_nothing_is_left_of_a_stream_that_ends() {
        let (budget, traffic) = traffic(64 << 20);
        let one = traffic.track(1, 100);
        let three = traffic.track(3, 0);
        traffic.arrived(&data(1, 900));
        traffic.arrived(&data(3, 50));
        traffic.arrived(&data(5, 50));
        assert_eq!(budget.used(), 1050, "nobody owns stream 5");
        one.consumed(400);
        one.queued(5000);
        three.queued(300);
        assert_eq!(budget.used(), 650 + 5300);
        traffic.left(&data(1, 4000));
        assert_eq!(budget.used(), 650 + 1300);
        drop(one);
        assert_eq!(budget.used(), 50 + 1300, "what is queued still goes out");
        traffic.arrived(&data(1, 70));
        assert_eq!(budget.used(), 50 + 1300, "which nobody takes any more");
        traffic.left(&data(1, 1000));
        traffic.left(&frame(3, 0, 3, 4));
        assert_eq!(budget.used(), 50, "a reset takes its queue along");
        drop(three);
        assert_eq!(budget.used(), 0);
        assert!(traffic.0.borrow().streams.is_empty());
    }

    #[test]
    fn a_peer_s_reset_frees_what_was_queued_for_it() {
        let (budget, traffic) = traffic(64 << 20);
        let one = traffic.track(1, 0);
        one.queued(5000);
        drop(one);
        traffic.arrived(&frame(3, 0, 1, 4));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn when_the_budget_is_used_up_a_tunnel_that_holds_some_of_it_is_not_read() {
        let (budget, traffic) = traffic(1 << 20);
        let one = traffic.track(1, 0);
        traffic.arrived(&data(1, 1_000_000));
        assert!(traffic.may_read(&context()), "something is free");
        let mut others = budget.holder();
        others.set(100_000);
        assert!(
            !traffic.may_read(&context()),
            "{} of {}",
            budget.used(),
            budget.total()
        );
        assert_eq!(budget.waits(), 1);
        one.consumed(960_000);
        others.set(1 << 20);
        assert!(traffic.may_read(&context()), "it holds next to nothing");
    }

    #[test]
    fn a_turn_has_an_end() {
        let (_, traffic) = traffic(64 << 20);
        for _ in 0..TURN {
            assert!(traffic.may_read(&context()));
            traffic.arrived(&frame(8, 0, 0, 4));
        }
        assert!(!traffic.may_read(&context()));
        assert_eq!(traffic.turn_over(), (true, None));
        assert!(traffic.may_read(&context()));
        assert_eq!(traffic.turn_over(), (false, None));
    }

    #[test]
    fn windows_shrink_with_the_number_of_streams_and_with_the_budget() {
        let (budget, traffic) = traffic(64 << 20);
        let window = |streams: u32| {
            let tracked: Vec<_> = (0..streams).map(|n| traffic.track(2 * n + 1, 0)).collect();
            let (_, window) = traffic.turn_over();
            drop(tracked);
            window.unwrap_or(STREAM_WINDOW)
        };
        assert_eq!(window(1), STREAM_WINDOW);
        assert_eq!(window(24), STREAM_WINDOW);
        assert_eq!(window(25), STREAM_WINDOW / 2);
        assert_eq!(window(190), 64 * 1024);
        let mut others = budget.holder();
        others.set(60 << 20);
        assert_eq!(window(190), MIN_STREAM_WINDOW);
    }

    #[test]
    fn a_full_queue_makes_streams_wait_and_wakes_them_when_it_shrinks() {
        let (_, traffic) = traffic(64 << 20);
        let mut one = traffic.track(1, 0);
        let mut three = traffic.track(3, 0);
        assert!(one.poll_room(&context()).is_ready());
        one.queued(QUEUE);
        assert!(one.poll_room(&context()).is_pending() && three.poll_room(&context()).is_pending());
        assert!(one.poll_room(&context()).is_pending());
        assert_eq!(traffic.0.borrow().senders.len(), 2, "each once");
        traffic.left(&data(1, 1000));
        assert!(traffic.0.borrow().senders.is_empty());
        assert!(three.poll_room(&context()).is_ready());
        for _ in 0..QUEUE_PIECES {
            three.queued(1);
        }
        assert!(three.poll_room(&context()).is_pending(), "many small pieces");
    }
}
