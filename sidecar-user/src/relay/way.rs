//! One direction of a relayed connection. Does not know that there is another one.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::port::Polled;

/// Bytes moved before the other tasks of the shard get their turn: some 50 µs.
const TURN: usize = 256 * 1024;
/// What a chunk counts besides its bytes: the system calls for a small one take as long as moving so many bytes.
const CHUNK: usize = 16 * 1024;

/// ```text
///  Open ──end of input──▶ Finishing ──told──▶ Done
///   └──the receiver takes no more──▶ Refused ──reported──▶ Done
/// ```
#[derive(Debug, Default)]
enum State {
    #[default]
    Open,
    Finishing,
    Done,
    Refused(io::Error),
}

#[derive(Debug, Default)]
pub(super) struct Way {
    state: State,
    /// Received, but not yet taken by the receiver; while it is not empty nothing more is read.
    parked: Bytes,
    /// Bytes of the chunk that `parked` is the rest of.
    chunk: usize,
}

impl Way {
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Something may still be delivered.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open | State::Finishing)
    }

    /// Will the next poll ask the sender, which then tells of a reset? Not for a receiver that refuses: it is the
    /// other way that ends such a connection.
    pub(super) fn is_receiving(&self) -> bool {
        match self.state {
            State::Open => self.parked.is_empty(),
            State::Refused(_) => true,
            State::Finishing | State::Done => false,
        }
    }

    /// The receiver does not take what is there for it.
    pub(super) fn is_held_up(&self) -> bool {
        matches!(self.state, State::Open) && !self.parked.is_empty()
    }

    /// Bytes of the chunk in hand that the receiver has taken; not counted yet.
    pub(super) fn taken(&self) -> u64 {
        match self.parked.len() {
            0 => 0,
            rest => (self.chunk - rest) as u64,
        }
    }

    /// The receiver's refusal to take more, once.
    pub(super) fn take_refusal(&mut self) -> Option<io::Error> {
        match std::mem::take(&mut self.state) {
            State::Refused(error) => Some(error),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Moves what can be moved; `is_last` says that the other direction has ended. An error is the sender's: it broke off. A receiver that breaks off is remembered
    /// instead, because it may have sent something that still has to be delivered.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Polled,
        to: &mut impl Polled,
        is_last: bool,
        mut count: impl FnMut(u64),
    ) -> Poll<io::Result<()>> {
        let mut turn = TURN;
        loop {
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Refused(_) => return Poll::Pending,
                State::Finishing => {
                    let finished = match is_last {
                        true => to.poll_finish_last(cx),
                        false => to.poll_finish(cx),
                    };
                    self.state = match ready!(finished) {
                        Ok(()) => State::Done,
                        Err(error) => State::Refused(error),
                    };
                }
                State::Open if self.parked.is_empty() => match ready!(from.poll_recv(cx))? {
                    Some(chunk) => {
                        self.chunk = chunk.len();
                        self.parked = chunk;
                    }
                    None => self.state = State::Finishing,
                },
                State::Open => match to.poll_send(cx, &mut self.parked) {
                    Poll::Pending => {
                        from.park(cx, &mut self.parked);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(())) => {
                        self.parked = Bytes::new();
                        count(self.chunk as u64);
                        from.consumed(self.chunk);
                        turn = turn.saturating_sub(self.chunk + CHUNK);
                        if turn == 0 {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                    }
                    Poll::Ready(Err(error)) => {
                        self.parked = Bytes::new();
                        self.state = State::Refused(error);
                    }
                },
            }
        }
    }
}
