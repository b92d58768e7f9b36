//! MOVE BYTES between two streams: half-close, resets, counters. Knows nothing of where the streams come from.
//!
//! One future drives both directions. It owns no buffer: a read lands in a buffer that all connections of the
//! thread share, and only what the other side could not take yet is kept, as a reference-counted slice.

mod tcp;
mod way;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use crate::model::flow;
use way::Way;

/// One of the two streams that are joined.
///
/// Every poll function follows the rules of `Future::poll`: `Pending` has arranged for a wake-up.
pub trait Port {
    /// The next bytes, `None` at the end of the stream, or why it broke.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>>;

    /// `n` received bytes have been taken by the other side: the sender may be given that much credit again.
    fn consumed(&mut self, n: usize);

    /// Takes bytes off the front of `chunk`; ready when it is empty.
    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>>;

    /// Tells the peer that no more bytes follow.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// After the end of what it sends, a peer can still give up what it receives. Ready when it has.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The peer will see a reset when this port is dropped, instead of an orderly end.
    fn reset(&mut self);
}

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

/// Joins two ports until both directions have ended. Bytes from `down` count as sent.
pub async fn relay(down: &mut impl Port, up: &mut impl Port, bytes: &flow::Bytes, limits: Limits) -> End {
    let mut out = Way::default();
    let mut back = Way::default();
    let mut idle = Idle {
        limit: limits.half_closed,
        timer: None,
        seen: 0,
    };
    let end = poll_fn(|cx| {
        let sent = out.poll(cx, down, up, |n| bytes.add_sent(n));
        let received = back.poll(cx, up, down, |n| bytes.add_received(n));
        match (sent, received) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Eof),
            (Poll::Ready(Err(error)), _) => return broken(Side::Downstream, error),
            (_, Poll::Ready(Err(error))) => return broken(Side::Upstream, error),
            _ => {}
        }
        // A side that could no longer be written to has told all that it had to tell.
        if back.is_done()
            && let Some(error) = out.take_refusal()
        {
            return broken(Side::Upstream, error);
        }
        if out.is_done()
            && let Some(error) = back.take_refusal()
        {
            return broken(Side::Downstream, error);
        }
        if out.is_done() && down.poll_gone(cx).is_ready() {
            return broken(Side::Downstream, io::ErrorKind::ConnectionReset.into());
        }
        if back.is_done() && up.poll_gone(cx).is_ready() {
            return broken(Side::Upstream, io::ErrorKind::ConnectionReset.into());
        }
        if out.is_done() || back.is_done() {
            let moved = bytes.sent() + bytes.received();
            return idle.poll(cx, moved).map(|()| End::Idle);
        }
        Poll::Pending
    })
    .await;
    if !matches!(end, End::Eof) {
        // What was handed over just now must leave before the reset does.
        tokio::task::yield_now().await;
    }
    // A direction that has ended stays ended: its reader may still be reading, and a reset would take away what it
    // has not read yet (envoy#45190). One that has not ended must not look as if it had.
    let (cut_up, cut_down) = match &end {
        End::Eof => (false, false),
        End::Broken {
            by: Side::Downstream, ..
        } => (!out.is_done(), false),
        End::Broken {
            by: Side::Upstream, ..
        } => (false, !back.is_done()),
        End::Idle => (!out.is_done(), !back.is_done()),
    };
    if cut_up {
        up.reset();
    }
    if cut_down {
        down.reset();
    }
    end
}

fn broken(by: Side, error: io::Error) -> Poll<End> {
    Poll::Ready(End::Broken { by, error })
}

/// A timer that exists only while a connection is half-closed.
struct Idle {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    seen: u64,
}

impl Idle {
    fn poll(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<()> {
        let limit = self.limit;
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
