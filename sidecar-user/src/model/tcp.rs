//! What the kernel knows of the TCP connections that a flow is made of, as values.
//!
//! Reads nothing: `host::tcp_facts` asks for a socket of this process, and the kernel programs tell of those that never
//! came to it. [`super::bottleneck`] judges by them.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// One connection, seen from its socket in this pod. Segments and bytes as TCP counts them: retransmitted ones again, and
/// SYN and FIN as a byte each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFacts {
    /// Smoothed round trip time; `None` before the first sample.
    pub rtt: Option<Duration>,
    pub min_rtt: Option<Duration>,
    pub segments_sent: u64,
    pub segments_received: u64,
    pub segments_retransmitted: u64,
    /// Not known of a connection that was left alone, as the next one and `queue`: the kernel shows it to no program.
    pub bytes_sent: Option<u64>,
    pub bytes_retransmitted: Option<u64>,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    /// Bytes a second, the newest sample.
    pub delivery_rate: u64,
    /// Segments.
    pub congestion_window: u32,
    /// Bytes of a segment.
    pub segment_size: u32,
    /// Segments on their way.
    pub unacked: u32,
    pub queue: Option<Queue>,
}

/// What waits in a socket to be sent, and what it waited for, all in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Bytes that were not sent yet.
    pub unsent: u32,
    /// How long there was something to send or to be acknowledged.
    pub busy: Duration,
    /// How long of that the peer's receive window was closed.
    pub window_limited: Duration,
    /// How long of that the send buffer was too small.
    pub buffer_limited: Duration,
}

/// The connections on both sides of this proxy. Of a connection that was left alone there is one, the application's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Legs {
    /// Between the client and this pod.
    pub client: Option<LegFacts>,
    /// Between this pod and the upstream.
    pub upstream: Option<LegFacts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegFacts {
    pub tcp: TcpFacts,
    /// The connection is a tunnel's: it carries other flows as well, and the figures count them all.
    pub is_tunnel: bool,
}

impl TcpFacts {
    /// Retransmitted segments of those that were sent, 0 to 1. `None` where nothing was sent.
    pub fn retransmit_ratio(&self) -> Option<f64> {
        (self.segments_sent > 0)
            .then(|| (self.segments_retransmitted as f64 / self.segments_sent as f64).min(1.0))
    }
}

/// The socket that the bytes of a leg go through.
#[derive(Clone, Debug)]
pub enum LegSocket {
    /// The flow's own, and nobody else's.
    Own(RawFd),
    Tunnel(Rc<TunnelSocket>),
}

/// A tunnel's socket, which outlives some of its streams and is outlived by others. What was read last is kept, so that
/// many streams that begin and end together ask the kernel once.
#[derive(Debug, Default)]
pub struct TunnelSocket {
    fd: Cell<Option<RawFd>>,
    last: Cell<Option<(Instant, TcpFacts)>>,
    /// Bytes have come since the flag was taken. A flag, not a time: reads are the hot path.
    heard: Cell<bool>,
    /// The peer's proxy was asked whether it is there, and has not answered yet.
    asked: Cell<bool>,
}

impl TunnelSocket {
    pub fn open(&self, fd: RawFd) {
        self.fd.set(Some(fd));
    }

    /// To be called before the descriptor is closed: its number is another file's soon.
    pub fn close(&self) {
        self.fd.set(None);
    }

    pub fn hear(&self) {
        self.heard.set(true);
    }

    pub fn take_heard(&self) -> bool {
        self.heard.replace(false)
    }

    pub fn set_asked(&self, asked: bool) {
        self.asked.set(asked);
    }

    /// The peer's proxy was asked, and nothing at all has come since.
    pub fn is_unanswered(&self) -> bool {
        self.asked.get() && !self.heard.get()
    }

    /// What was read no longer ago than `age`, else what `read` says now; where the socket is closed, what it said last.
    pub fn facts(
        &self,
        now: Instant,
        age: Duration,
        read: impl FnOnce(RawFd) -> Option<TcpFacts>,
    ) -> Option<TcpFacts> {
        let last = self.last.get();
        let is_fresh = |(at, _): &(Instant, TcpFacts)| now.saturating_duration_since(*at) <= age;
        if !last.as_ref().is_some_and(is_fresh)
            && let Some(facts) = self.fd.get().and_then(read)
        {
            self.last.set(Some((now, facts)));
        }
        self.last.get().map(|(_, facts)| facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_tunnel_share_a_reading_while_it_is_fresh_and_keep_the_last_one() {
        let socket = TunnelSocket::default();
        socket.open(7);
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let reading = |unacked| TcpFacts {
            unacked,
            ..TcpFacts::default()
        };
        let read = |at, unacked| {
            let facts = socket.facts(at, second, |fd| (fd == 7).then(|| reading(unacked)));
            facts.map(|facts| facts.unacked)
        };
        assert_eq!(read(start, 1), Some(1));
        assert_eq!(read(start + second, 2), Some(1), "fresh");
        assert_eq!(read(start + second * 3, 3), Some(3));
        socket.close();
        assert_eq!(read(start + second * 9, 4), Some(3), "nobody is asked any more");
    }

    #[test]
    fn a_connection_that_sent_nothing_has_no_retransmit_ratio() {
        let mut facts = TcpFacts::default();
        assert_eq!(facts.retransmit_ratio(), None);
        facts.segments_retransmitted = 1;
        facts.segments_sent = 4;
        assert_eq!(facts.retransmit_ratio(), Some(0.25));
    }
}
