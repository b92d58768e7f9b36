//! A TCP socket as a port. Reads land in a buffer of the thread, not of the connection. Knows no other side.
//!
//! Most connections carry one exchange and are gone. What only those need that carry more is left for when they do: an
//! option of a socket is a system call.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nix::libc;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;

use super::watched::Watched;
use super::{Polled, Port, sys};
use crate::budget::{Budget, Held};
use crate::model::{LegSocket, leg};

/// The buffer's size. Bulk reads of 64 KiB and more are where the cost per system call stops to matter
/// (10.3 us per 128 KiB, 6.1 us per 64 KiB on loopback).
const ARENA: usize = 128 * 1024;
/// A read is not started with less room than this, unless the budget leaves less.
const ROOM: usize = 32 * 1024;
/// Chunks up to this size are copied out: a parked small chunk must not keep a whole arena alive.
const SMALL: usize = 4096;

thread_local! {
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

impl<S: Watched> Port for S {
    fn open(&mut self, budget: &Budget) -> impl Polled {
        Socket {
            stream: self,
            held: budget.holder(),
            was_reset: false,
            gone: Gone::Unasked,
            read: Times::None,
            written: Times::None,
        }
    }

    fn reset(&mut self) {
        // Fails only on a socket that is gone already, which is what a reset wants.
        let _ = SockRef::from(&*self).set_linger(Some(Duration::ZERO));
    }

    fn reset_finished(&mut self) {
        // What waits for the peer to open its window would be thrown away with the reset, the end included.
        if sys::unsent(self.as_fd()).is_ok_and(|bytes| bytes == 0) {
            self.reset();
        }
    }

    fn socket(&self) -> Option<LegSocket> {
        Some(LegSocket::Own(self.as_fd().as_raw_fd()))
    }
}

struct Socket<'s, S> {
    stream: &'s S,
    /// The memory of a chunk that waits for the other side.
    held: Held,
    /// The kernel tells of a reset once, to whoever asks first. After a write that was told, a read sees an end.
    was_reset: bool,
    gone: Gone<'s>,
    read: Times,
    written: Times,
}

/// How often something was done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    None,
    Once,
    More,
}

/// Waiting for the error that a reset leaves on the socket. Most connections never do.
enum Gone<'s> {
    Unasked,
    Awaited(Pin<Box<dyn Future<Output = ()> + Send + 's>>),
    Known,
}

impl<S: Watched> Socket<'_, S> {
    /// A transfer that says how much it moved, and whether at once there is more to move. Where there is not, the
    /// next one waits for news without asking the kernel again.
    fn attempt(
        &self,
        interest: Interest,
        transfer: impl FnOnce() -> io::Result<(usize, bool)>,
    ) -> io::Result<usize> {
        let mut moved = None;
        let attempt = self.stream.try_io(interest, || {
            let (n, more) = transfer()?;
            moved = Some(n);
            match n {
                // What forgets the readiness. News since the transfer began are not forgotten.
                1.. if !more => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        match moved {
            Some(n) => Ok(n),
            None => attempt.map(|()| 0),
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, arena: &mut BytesMut) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_readable(cx))?;
            // All of it may have to wait.
            let share = self.held.budget().connection_share();
            let room = (arena.capacity() - arena.len()).min(share);
            let read = || {
                let sys::Received { bytes, more } = sys::receive(self.stream.as_fd(), arena, room)?;
                Ok((bytes, more || bytes == room || self.stream.is_urgent()))
            };
            match self.attempt(Interest::READABLE, read) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// To be called before each write of so many bytes.
    fn will_write(&mut self, bytes: usize) {
        let is_more = match self.written {
            // A kernel waits with a small segment only while another one is on its way.
            Times::None => bytes > SMALL,
            Times::Once => true,
            Times::More => return,
        };
        if is_more {
            self.written = Times::More;
            self.stream.writes_on();
        }
    }

    fn has_read(&mut self) {
        self.read = match self.read {
            Times::None => Times::Once,
            Times::Once => {
                self.stream.reads_on();
                Times::More
            }
            Times::More => Times::More,
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_writable(cx))?;
            let write = || {
                let n = SockRef::from(self.stream).send_with_flags(bytes, libc::MSG_NOSIGNAL)?;
                Ok((n, n == bytes.len()))
            };
            match self.attempt(Interest::WRITABLE, write) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl<S: Watched> Polled for Socket<'_, S> {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        BUFFER.with_borrow_mut(|arena| {
            // It is empty, unless a panic has cut another connection off here: nobody else is to get those bytes.
            arena.clear();
            if arena.capacity() < ROOM {
                // Reclaims the old memory when every chunk cut from it is gone, else takes new.
                arena.reserve(ARENA);
            }
            let n = ready!(self.poll_read(cx, arena))?;
            if n > 0 {
                self.has_read();
            }
            Poll::Ready(match n {
                0 if self.was_reset => Err(io::ErrorKind::ConnectionReset.into()),
                0 => Ok(None),
                1..=SMALL => {
                    let chunk = Bytes::copy_from_slice(arena);
                    arena.clear();
                    Ok(Some(chunk))
                }
                _ => Ok(Some(arena.split().freeze())),
            })
        })
    }

    fn park(&mut self, _: &mut Context<'_>, rest: &mut Bytes) {
        let waiting = rest.len();
        if self.held.bytes() == 0 {
            // A slice keeps its whole arena, which other connections have moved on from.
            self.held.set(if waiting > SMALL { ARENA } else { waiting });
        }
        if waiting * 2 <= self.held.bytes() {
            *rest = Bytes::copy_from_slice(rest);
            self.held.set(waiting);
        }
    }

    fn consumed(&mut self, _: usize) {
        // The kernel opened the window when the bytes were read.
        self.held.set(0);
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        while !chunk.is_empty() {
            self.will_write(chunk.len());
            let n = match ready!(self.poll_write(cx, chunk)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => n,
                Err(error) => {
                    // Not EPIPE: that comes after an end, which stays one.
                    self.was_reset |= error.kind() == io::ErrorKind::ConnectionReset;
                    return Poll::Ready(Err(error));
                }
            };
            if self.written == Times::None {
                self.written = Times::Once;
            }
            // Not `advance`: the last byte gone, the slice must let go of its memory.
            drop(chunk.split_to(n));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(self.stream).shutdown(Shutdown::Write))
    }

    fn poll_finish_last(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // close() tells it, too: what the peer has sent was read to its end. Asked only where a reset has come in between.
        if self.stream.has_error() {
            return self.poll_finish(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Gone::Unasked = self.gone {
            self.gone = Gone::Awaited(self.stream.error());
        }
        if let Gone::Awaited(error) = &mut self.gone {
            ready!(error.as_mut().poll(cx));
            self.gone = Gone::Known;
        }
        Poll::Ready(())
    }

    fn lasts(&mut self) {
        let keepalive = TcpKeepalive::new();
        let keepalive = keepalive.with_time(leg::KEEPALIVE).with_interval(leg::KEEPALIVE);
        // Fails on a socket that is gone already, as its next read will tell.
        let _ = SockRef::from(self.stream).set_tcp_keepalive(&keepalive);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::{LASTING, Limits, relay};
    use super::*;
    use crate::model::flow;

    /// What a connection leaves in the buffer whose walk panics between the read and the cut.
    #[tokio::test]
    async fn bytes_left_over_in_the_thread_s_buffer_reach_no_other_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut receiver, _) = listener.accept().await.unwrap();
        sender.write_all(b"mine").await.unwrap();
        BUFFER.with_borrow_mut(|arena| arena.extend_from_slice(b"somebody else's"));
        let budget = Budget::new(1 << 20);
        let mut port = receiver.open(&budget);
        let received = poll_fn(|cx| port.poll_recv(cx)).await.unwrap().unwrap();
        assert_eq!(received, "mine");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dialled_connection_that_lasts_looks_after_a_silent_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut ends = Vec::new();
        for _ in 0..2 {
            let dialled = TcpStream::connect(at).await.unwrap();
            ends.push((dialled, listener.accept().await.unwrap().0));
        }
        let [(mut up, _server), (_client, mut down)] = <[_; 2]>::try_from(ends).unwrap();
        let alive = |stream: &TcpStream| SockRef::from(stream).keepalive().unwrap();
        let limits = Limits {
            half_closed: LASTING * 10,
        };
        let (bytes, budget) = (flow::Bytes::default(), Budget::new(1 << 20));
        assert!(!alive(&up), "not yet");
        {
            let relayed = relay(&mut down, &mut up, &bytes, &budget, limits);
            assert!(
                tokio::time::timeout(LASTING * 2, relayed).await.is_err(),
                "nobody ends it"
            );
        }
        assert!(alive(&up));
        let idle = SockRef::from(&up).tcp_keepalive_time().unwrap();
        assert_eq!(idle, leg::KEEPALIVE);
    }

    #[tokio::test]
    async fn a_chunk_that_waits_takes_what_it_needs_and_counts_as_that() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let budget = Budget::new(64 << 20);
        let cx = &mut Context::from_waker(Waker::noop());
        let mut port = stream.open(&budget);
        let arena = Bytes::from(vec![0; ARENA]);
        let mut rest = arena.slice(..100_000);
        port.park(cx, &mut rest);
        assert_eq!(budget.used(), ARENA, "most of the arena: not worth a copy");
        port.consumed(0);
        assert_eq!(budget.used(), 0, "taken");
        let mut rest = arena.slice(..20_000);
        port.park(cx, &mut rest);
        assert_eq!(budget.used(), 20_000);
        assert_ne!(rest.as_ptr(), arena.as_ptr(), "it keeps no arena");
        drop(rest.split_to(15_000));
        port.park(cx, &mut rest);
        assert_eq!(budget.used(), 5_000);
    }
}
