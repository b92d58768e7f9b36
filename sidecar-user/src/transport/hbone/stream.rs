//! One CONNECT stream, as polls over byte chunks. Maps HTTP/2 stream ends to TCP's words: end of stream is FIN,
//! a reset is RST. Does not know which side of the tunnel it is on.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};

use super::traffic::Tracked;
use crate::model::tcp::TunnelSocket;

/// A stream that has moved this much is bulk: its tunnel takes no new streams while it lives, so that small flows
/// do not queue behind it.
const BULK: usize = 128 * 1024;

/// Chunks below this are copied together when they have to wait: each would pin a read buffer of the HTTP/2 layer.
const SMALL: usize = 4096;

/// What the streams of one tunnel tell the pool.
#[derive(Debug, Default)]
pub(super) struct Occupancy {
    pub(in crate::transport) streams: Cell<usize>,
    pub(in crate::transport) bulk: Cell<usize>,
}

#[derive(Debug)]
pub struct Stream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    place: Place,
    tracked: Tracked,
    waiting: Waiting,
}

/// What was received and has to wait until its application takes it.
#[derive(Debug, Default)]
struct Waiting {
    chunks: VecDeque<Bytes>,
    /// Small chunks behind those, in one piece.
    tail: BytesMut,
    /// How the stream ended, to be told after all that.
    end: Option<io::Result<()>>,
}

impl Waiting {
    fn push(&mut self, chunk: Bytes) {
        if chunk.len() < SMALL {
            self.tail.extend_from_slice(&chunk);
            return;
        }
        self.seal();
        self.chunks.push_back(chunk);
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.seal();
        }
        self.chunks.pop_front()
    }
}

/// A stream's place in its tunnel, given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    occupancy: Rc<Occupancy>,
    moved: usize,
}

impl Place {
    pub(super) fn take(occupancy: &Rc<Occupancy>) -> Self {
        occupancy.streams.set(occupancy.streams.get() + 1);
        Self {
            occupancy: occupancy.clone(),
            moved: 0,
        }
    }

    fn moved(&mut self, n: usize) {
        if self.moved < BULK && self.moved + n >= BULK {
            self.occupancy.bulk.set(self.occupancy.bulk.get() + 1);
        }
        self.moved = self.moved.saturating_add(n);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.occupancy.streams.set(self.occupancy.streams.get() - 1);
        if self.moved >= BULK {
            self.occupancy.bulk.set(self.occupancy.bulk.get() - 1);
        }
    }
}

impl Stream {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream, place: Place, tracked: Tracked) -> Self {
        Self {
            send,
            recv,
            place,
            tracked,
            waiting: Waiting::default(),
        }
    }

    /// The next bytes, `None` at the end of the stream.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if let Some(chunk) = self.waiting.pop() {
            return Poll::Ready(Ok(Some(chunk)));
        }
        if let Some(end) = self.waiting.end.take() {
            return Poll::Ready(end.map(|()| None));
        }
        self.poll_chunk(cx)
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            return Poll::Ready(match ready!(self.recv.poll_data(cx)) {
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(Ok(chunk)) => {
                    self.place.moved(chunk.len());
                    Ok(Some(chunk))
                }
                // The peer's way of saying that it is done with us, and nothing is wrong (RFC 9113, 8.1).
                Some(Err(e)) if e.is_reset() && e.reason() == Some(Reason::NO_ERROR) => Ok(None),
                Some(Err(e)) => Err(broken(e)),
                None => Ok(None),
            });
        }
    }

    /// Takes over what arrives while the application does not read. The HTTP/2 layer would keep some 300 bytes for each
    /// frame, however small, and the read buffer that it came in; here it takes its own size. No credit is given for it.
    pub fn gather(&mut self, cx: &mut Context<'_>) {
        while self.waiting.end.is_none() {
            match self.poll_chunk(cx) {
                Poll::Ready(Ok(Some(chunk))) => self.waiting.push(chunk),
                Poll::Ready(Ok(None)) => self.waiting.end = Some(Ok(())),
                Poll::Ready(Err(error)) => self.waiting.end = Some(Err(error)),
                Poll::Pending => return,
            }
        }
    }

    #[cfg(test)]
    pub(in crate::transport) fn waiting_bytes(&self) -> usize {
        self.waiting.tail.len() + self.waiting.chunks.iter().map(Bytes::len).sum::<usize>()
    }

    /// Gives the peer leave to send `n` more bytes. Called when they have reached the application's socket, so
    /// that a slow reader is felt by the sender.
    pub fn consumed(&mut self, n: usize) {
        self.tracked.consumed(n);
        // Fails only when the stream is over, and then nobody needs the credit.
        let _ = self.recv.flow_control().release_capacity(n);
    }

    /// Takes bytes off the front of `chunk` as the peer's credit allows; ready when it is empty.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        while !chunk.is_empty() {
            ready!(self.tracked.poll_room(cx));
            self.send.reserve_capacity(chunk.len());
            let mut credit = self.send.capacity();
            if credit == 0 {
                credit = match ready!(self.send.poll_capacity(cx)) {
                    Some(Ok(n)) => n,
                    Some(Err(e)) => return Poll::Ready(Err(broken(e))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                };
            }
            let part = chunk.split_to(credit.min(chunk.len()));
            let n = part.len();
            self.place.moved(n);
            self.send.send_data(part, false).map_err(broken)?;
            self.tracked.queued(n);
        }
        // The last byte gone, the slice must let go of its memory.
        *chunk = Bytes::new();
        Poll::Ready(Ok(()))
    }

    /// That of its tunnel.
    pub fn socket(&self) -> Rc<TunnelSocket> {
        self.tracked.socket()
    }

    /// Was the tunnel ended because its peer is not believed any more?
    pub fn is_distrusted(&self) -> bool {
        self.tracked.is_distrusted()
    }

    /// Ends our direction.
    pub fn finish(&mut self) -> io::Result<()> {
        self.send.send_data(Bytes::new(), true).map_err(broken)
    }

    /// Ready when the peer has reset the stream.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.send.poll_reset(cx) {
            // A peer that has sent all it had may say so twice.
            Poll::Ready(Ok(Reason::NO_ERROR)) | Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(()),
        }
    }

    /// The application's RST, as RFC 9113 section 8.5 has it.
    pub fn reset(&mut self) {
        self.send.send_reset(Reason::CONNECT_ERROR);
    }

    /// The proxy's own end of it: nothing is wrong with the application (wire.md 1.7).
    pub fn cancel(&mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        // The tunnel itself: all its streams end with this.
        return error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into());
    }
    let kind = if error.is_reset() {
        io::ErrorKind::ConnectionReset
    } else {
        io::ErrorKind::ConnectionAborted
    };
    io::Error::new(kind, error)
}
