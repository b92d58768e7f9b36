//! The tunnel's socket under the HTTP/2 layer: notes what passes, and holds back what there is no room for.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::traffic::Traffic;
use crate::model::tcp::TunnelSocket;

/// Told of every arrival of bytes, for the keep-alive.
pub(super) type Heard = Rc<TunnelSocket>;

#[derive(Debug)]
pub(super) struct Socket<S> {
    inner: S,
    traffic: Traffic,
    heard: Heard,
}

impl<S> Socket<S> {
    pub(super) fn new(inner: S, traffic: Traffic) -> (Self, Heard) {
        let heard = traffic.socket().clone();
        let socket = Self {
            inner,
            traffic,
            heard: heard.clone(),
        };
        (socket, heard)
    }
}

impl<S> Drop for Socket<S> {
    fn drop(&mut self) {
        self.traffic.socket().close();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.traffic.may_read(cx) {
            // It is we who do not listen: no reason to take the peer for dead.
            self.heard.hear();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let arrived = &buf.filled()[before..];
        if !arrived.is_empty() {
            self.heard.hear();
            self.traffic.arrived(arrived);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.traffic.left(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        let mut rest = n;
        for buf in bufs {
            let part = rest.min(buf.len());
            self.traffic.left(&buf[..part]);
            rest -= part;
            if rest == 0 {
                break;
            }
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
