//! Noticing that a tunnel's peer is gone. Speaks HTTP/2 PING only when the tunnel has been silent.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How often the keep-alive looks.
const TICK: Duration = Duration::from_secs(5);
/// A PING is sent when nothing arrived for this many ticks (wire.md 1.4: 10 s).
const SILENT_TICKS: u32 = 2;
/// And the peer is dead when nothing at all has arrived for this long after it.
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
    let mut silent = 0;
    loop {
        tokio::time::sleep(TICK).await;
        silent = if heard.replace(false) { 0 } else { silent + 1 };
        if silent < SILENT_TICKS {
            continue;
        }
        if ping.send_ping(Ping::opaque()).is_err() {
            return;
        }
        // One PING at a time, however late its answer: h2 allows no second one, and anything heard meanwhile is a
        // sign of life, even when the answer itself is stuck behind it.
        loop {
            match tokio::time::timeout(PATIENCE, poll_fn(|cx| ping.poll_pong(cx))).await {
                Ok(Ok(_)) => break,
                Err(_) if heard.replace(false) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
        silent = 0;
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
