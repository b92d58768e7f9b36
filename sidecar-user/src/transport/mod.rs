//! HOW DO BYTES TRAVEL? Plain TCP, mutual TLS, HBONE, the tunnel pool and peer verification. Chooses no
//! destination and asks no policy: it is told where to go and whom to expect.

pub mod hbone;
pub mod pool;
mod sys;
pub mod tcp;
pub mod tls;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::model::SpiffeId;

/// Time-outs of wire.md 1.10.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    pub tls: Duration,
    /// Until the peer's HTTP/2 preface and first SETTINGS.
    pub settings: Duration,
    /// For the answer to CONNECT: above 15 s, because ztunnel may wait 5 s for its workload and 10 s for the
    /// application.
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            tls: Duration::from_secs(10),
            settings: Duration::from_secs(5),
            request: Duration::from_secs(20),
        }
    }
}

/// Told of every tunnel that opens (+1) and closes (-1).
pub type Tally = Rc<dyn Fn(i64)>;

/// One tunnel, counted for as long as it lives.
struct Counted(Tally);

impl Counted {
    fn new(tally: &Tally) -> Self {
        tally(1);
        Self(tally.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.0)(-1);
    }
}

/// Why a connection could not be made. Cheap to clone: everybody who waits for one dial gets it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect to {addr}")]
    Connect {
        addr: SocketAddr,
        #[source]
        source: Rc<io::Error>,
    },
    #[error("{addr} did not finish {what} within {after:?}")]
    TimedOut {
        addr: SocketAddr,
        what: Step,
        after: Duration,
    },
    #[error("this proxy has no valid certificate; see its log for why the certificate service gave none")]
    NoIdentity,
    #[error("{addr} proved to be {}, but {} was expected", names(found), names(expected))]
    WrongIdentity {
        addr: SocketAddr,
        expected: Vec<SpiffeId>,
        found: Vec<SpiffeId>,
    },
    #[error("no TLS session with {addr}")]
    Tls {
        addr: SocketAddr,
        #[source]
        source: Rc<io::Error>,
    },
    #[error("the tunnel to {addr} broke")]
    Http2 {
        addr: SocketAddr,
        #[source]
        source: Rc<h2::Error>,
    },
    #[error("the tunnel to {addr} was closed as soon as it was open")]
    Closed { addr: SocketAddr },
    /// The peer's proxy answered, but not with 200.
    #[error("{addr} answered CONNECT with {status}{}", refusal.map(|r| format!(" ({r})")).unwrap_or_default())]
    Refused {
        addr: SocketAddr,
        status: u16,
        refusal: Option<hbone::Refusal>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Connect,
    FirstByte,
    TlsHandshake,
    Http2Preface,
    ConnectRequest,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "the TCP handshake",
            Self::FirstByte => "sending a first byte",
            Self::TlsHandshake => "the TLS handshake",
            Self::Http2Preface => "the HTTP/2 preface",
            Self::ConnectRequest => "answering CONNECT",
        })
    }
}

impl Error {
    /// Nobody answers for the peer's proxy now: its port is closed, or it went away before it had answered. A proxy that is
    /// stopped and started again looks like this for a moment.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Connect { source, .. } | Self::Tls { source, .. } => is_gone(source),
            Self::Http2 { source, .. } => {
                // RFC 9113, 6.8: a peer that ends says so without an error.
                let goes_away = source.is_go_away() && source.is_remote();
                // And 8.7: what it has refused unprocessed may be asked again.
                source.get_io().is_some_and(is_gone)
                    || goes_away && source.reason() == Some(h2::Reason::NO_ERROR)
                    || self.is_refused_stream()
            }
            Self::Closed { .. } => true,
            _ => false,
        }
    }

    fn is_refused_stream(&self) -> bool {
        matches!(self, Self::Http2 { source, .. } if source.reason() == Some(h2::Reason::REFUSED_STREAM))
    }
}

/// Whether the other end has closed the connection, or never had one.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | UnexpectedEof
    )
}

fn names(ids: &[SpiffeId]) -> String {
    match ids {
        [] => "nobody".to_owned(),
        ids => ids.iter().map(SpiffeId::as_str).collect::<Vec<_>>().join(" or "),
    }
}

#[cfg(test)]
pub(crate) mod tests;
