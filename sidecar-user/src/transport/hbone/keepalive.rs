//! Noticing that a tunnel's peer is gone. Speaks HTTP/2 PING only when the tunnel has been silent.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A PING is sent when nothing arrived for this long (wire.md 1.4).
const SILENCE: Duration = Duration::from_secs(10);
/// And the peer is dead when it has not been answered after this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Set by every arrival of bytes, cleared by the keep-alive. A flag, not a time: reads are the hot path.
pub(super) type Heard = Rc<Cell<bool>>;

/// A stream that notes that something arrived.
#[derive(Debug)]
pub(super) struct Listening<S> {
    inner: S,
    heard: Heard,
}

impl<S> Listening<S> {
    pub(super) fn new(inner: S) -> (Self, Heard) {
        let heard = Heard::default();
        (
            Self {
                inner,
                heard: heard.clone(),
            },
            heard,
        )
    }
}

/// Ends when the peer is dead.
pub(super) async fn watch(mut ping: PingPong, heard: Heard) {
    loop {
        tokio::time::sleep(SILENCE).await;
        if heard.replace(false) {
            continue;
        }
        match tokio::time::timeout(PATIENCE, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // Anything heard is a sign of life, even when the answer itself is stuck behind it.
            Err(_) if heard.get() => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.heard.set(true);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
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
