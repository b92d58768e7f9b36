//! Makes a tunnel's stream a port of the relay. Glue between two rooms that do not know each other.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::budget::Budget;
use crate::model::LegSocket;
use crate::relay::{Polled, Port};
use crate::transport::hbone::Stream;

impl Port for Stream {
    fn open(&mut self, _: &Budget) -> impl Polled {
        // Its tunnel counts what all its streams hold.
        self
    }

    fn reset(&mut self) {
        Stream::reset(self);
    }

    fn cancel(&mut self) {
        Stream::cancel(self);
    }

    fn reset_finished(&mut self) {
        // The peer's half of HTTP/2 keeps an end that it has received apart from the reset after it.
        Stream::reset(self);
    }

    fn socket(&self) -> Option<LegSocket> {
        Some(LegSocket::Tunnel(self.socket()))
    }
}

impl Polled for &mut Stream {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        Stream::poll_recv(self, cx)
    }

    fn park(&mut self, cx: &mut Context<'_>, _: &mut Bytes) {
        self.gather(cx);
    }

    fn consumed(&mut self, n: usize) {
        Stream::consumed(self, n);
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        Stream::poll_send(self, cx, chunk)
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Stream::poll_gone(self, cx)
    }
}

#[cfg(test)]
mod tests;
