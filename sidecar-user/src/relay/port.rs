//! What a stream has to offer, so that it can be one of two that are joined.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::budget::Budget;
use crate::model::LegSocket;

/// One of the two streams that are joined.
pub trait Port {
    /// The port while bytes move. What it keeps for the other side counts against the budget.
    fn open(&mut self, budget: &Budget) -> impl Polled;

    /// The peer will see a reset when this port is dropped, instead of an orderly end.
    fn reset(&mut self);

    /// As `reset`, where not the other side broke off but the proxy ends the connection.
    fn cancel(&mut self) {
        self.reset();
    }

    /// As `reset`, after all was sent and the end told, unless the reset would overtake any of it.
    fn reset_finished(&mut self);

    /// What the bytes go through, to ask the kernel about it.
    fn socket(&self) -> Option<LegSocket> {
        None
    }
}

/// Every poll function follows the rules of `Future::poll`: `Pending` has arranged for a wake-up.
pub trait Polled {
    /// The next bytes, `None` at the end of the stream, or why it broke.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>>;

    /// The other side takes no more of the chunk received last, whose `rest` has to wait: it is to take as little memory as
    /// it needs, and so is what arrives behind it. Called again with each wake-up while the rest waits.
    fn park(&mut self, cx: &mut Context<'_>, rest: &mut Bytes);

    /// `n` received bytes have been taken by the other side: the sender may be given that much credit again.
    fn consumed(&mut self, n: usize);

    /// Takes bytes off the front of `chunk`; ready when it is empty.
    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>>;

    /// Tells the peer that no more bytes follow.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// As `poll_finish`, where both directions have ended by it, and the port is dropped.
    fn poll_finish_last(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_finish(cx)
    }

    /// Ready when the peer has reset the stream. For times when nothing is received, which would tell: after the end
    /// of what the peer sends, and while the other side takes none of it. Bytes sent before may still be there.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The connection is none of the many that end at once: what only those need that last is worth its price.
    fn lasts(&mut self) {}
}
