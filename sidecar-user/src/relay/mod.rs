//! MOVE BYTES between two streams: half-close, resets, counters. Knows nothing of where the streams come from.
//!
//! One future drives both directions. It owns no buffer: a read lands in a buffer that all connections of the
//! thread share, and only what the other side could not take yet is kept, as a reference-counted slice.
//!
//! Whatever breaks a side off, the other side is told by a reset, the only such message that TCP has: where a lost
//! link would give an application ETIMEDOUT without a proxy, the proxy gets that and the application ECONNRESET.

mod port;
mod sys;
mod tcp;
mod watched;
mod way;

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::budget::Budget;
use crate::model::flow;
use way::Way;

pub use port::{Polled, Port};

/// How long a receiver may take nothing of what a sender has left behind that has reset the connection. Longer than
/// credit takes to come from far away; a receiver that does not read at all is to learn of the reset.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Most connections are over by then. The others' upstream sockets are told to look after a silent peer, three system calls
/// that a short connection is spared; those that were accepted have inherited it from their listener. Longer than the
/// timers that a shard always has: for one that is due before them tokio wakes its own driver, a system call, too.
const LASTING: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a half-closed connection may stay silent. Connections open both ways have no limit.
    pub half_closed: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Downstream,
    Upstream,
}

/// How a relayed connection ended.
#[derive(Debug)]
pub enum End {
    /// Both sides finished.
    Eof,
    /// This side broke off, and the other one was told.
    Broken { by: Side, error: io::Error },
    /// Half-closed and silent for longer than the limit.
    Idle,
}

/// Lets the sockets that a listener accepts be relayed: they inherit that their reads tell whether they left something.
pub fn prepare(listener: impl AsFd) -> io::Result<()> {
    sys::tell_of_more(listener.as_fd())
}

/// Joins two ports until both directions have ended; they are to be dropped then, which may be what tells the last end.
/// Bytes from `down` count as sent.
pub async fn relay(
    down: &mut impl Port,
    up: &mut impl Port,
    bytes: &flow::Bytes,
    budget: &Budget,
    limits: Limits,
) -> End {
    let mut out = Way::default();
    let mut back = Way::default();
    let (down_open, up_open) = (down.open(budget), up.open(budget));
    let end = run(&mut out, &mut back, down_open, up_open, bytes, limits).await;
    bytes.to_upstream.set(false, std::time::Instant::now);
    bytes.to_client.set(false, std::time::Instant::now);
    if !matches!(end, End::Eof) {
        // What was handed over just now must leave before the reset does.
        tokio::task::yield_now().await;
    }
    match end {
        End::Eof => {}
        End::Broken {
            by: Side::Downstream, ..
        } => cut(up, &out),
        End::Broken {
            by: Side::Upstream, ..
        } => cut(down, &back),
        End::Idle => {
            if !out.is_done() {
                up.reset();
            }
            if !back.is_done() {
                down.reset();
            }
        }
    }
    end
}

/// Tells `to` that the sender of `way` broke off.
fn cut(to: &mut impl Port, way: &Way) {
    if way.is_done() {
        // A direction that has ended stays ended: its reader may still be reading, and a reset would take away what
        // it has not received yet (envoy#45190).
        to.reset_finished();
    } else {
        // It must not look as if it had ended.
        to.reset();
    }
}

/// Moves bytes until there is an end, and tells nobody of it. No `async fn`: that keeps its arguments twice.
fn run(
    out: &mut Way,
    back: &mut Way,
    mut down: impl Polled,
    mut up: impl Polled,
    bytes: &flow::Bytes,
    limits: Limits,
) -> impl Future<Output = End> {
    let mut half_closed = Silence::default();
    let mut last_words = Silence::default();
    let mut young = Some(Box::pin(tokio::time::sleep(LASTING)));
    poll_fn(move |cx| {
        if young
            .as_mut()
            .is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
        {
            young = None;
            up.lasts();
        }
        let sent = out.poll(cx, &mut down, &mut up, back.is_done(), |n| bytes.add_sent(n));
        let received = back.poll(cx, &mut up, &mut down, out.is_done(), |n| bytes.add_received(n));
        bytes.to_upstream.set(out.is_held_up(), std::time::Instant::now);
        bytes.to_client.set(back.is_held_up(), std::time::Instant::now);
        match (sent, received) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Eof),
            (Poll::Ready(Err(error)), _) => return broken(Side::Downstream, error),
            (_, Poll::Ready(Err(error))) => return broken(Side::Upstream, error),
            _ => {}
        }
        // A side that could no longer be written to has told all that it had to tell, or nobody would hear it.
        if !back.is_open()
            && let Some(error) = out.take_refusal()
        {
            return broken(Side::Upstream, error);
        }
        if out.is_done()
            && let Some(error) = back.take_refusal()
        {
            return broken(Side::Downstream, error);
        }
        // Where nothing is received a reset has to be asked for.
        let down_gone = !out.is_receiving() && down.poll_gone(cx).is_ready();
        let up_gone = !back.is_receiving() && up.poll_gone(cx).is_ready();
        if out.is_done() && down_gone {
            return broken(Side::Downstream, io::ErrorKind::ConnectionReset.into());
        }
        if back.is_done() && up_gone {
            return broken(Side::Upstream, io::ErrorKind::ConnectionReset.into());
        }
        let moved = || bytes.sent() + bytes.received() + out.taken() + back.taken();
        if (down_gone || up_gone) && last_words.poll(cx, LAST_WORDS, moved()).is_ready() {
            let by = if down_gone {
                Side::Downstream
            } else {
                Side::Upstream
            };
            return broken(by, io::ErrorKind::ConnectionReset.into());
        }
        if out.is_done() || back.is_done() {
            return half_closed
                .poll(cx, limits.half_closed, moved())
                .map(|()| End::Idle);
        }
        Poll::Pending
    })
}

fn broken(by: Side, error: io::Error) -> Poll<End> {
    Poll::Ready(End::Broken { by, error })
}

/// A timer that exists only while it is asked for, and starts again when bytes have moved.
#[derive(Default)]
struct Silence {
    timer: Option<Pin<Box<Sleep>>>,
    seen: u64,
}

impl Silence {
    fn poll(&mut self, cx: &mut Context<'_>, limit: Duration, moved: u64) -> Poll<()> {
        loop {
            let timer = self.timer.get_or_insert_with(|| {
                self.seen = moved;
                Box::pin(tokio::time::sleep(limit))
            });
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.seen == moved {
                return Poll::Ready(());
            }
            self.seen = moved;
            timer.as_mut().reset(Instant::now() + limit);
        }
    }
}

#[cfg(test)]
mod tests;
