//! Translates what the rooms report into what a flow says: who ended it, and why.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;

use super::limits::Resources;
use crate::error_chain;
use crate::intercept::packet::Unreachable;
use crate::model::{Cause, OriginalDst, Outcome, Party};
use crate::relay::{End, Side};
use crate::route;
use crate::transport::{Error, hbone::Refusal};

pub(super) fn of_refusal(refusal: route::Refusal) -> Outcome {
    match refusal {
        route::Refusal::NoEndpoint => Outcome::new(Party::Us, Cause::NoEndpoint),
        route::Refusal::NeedsWaypoint => Outcome::new(Party::Policy, Cause::Denied),
        route::Refusal::UnknownDestination => Outcome::new(Party::Policy, Cause::UnknownDestination),
    }
}

pub(super) fn of_error(error: &Error) -> Outcome {
    match error {
        Error::Connect { source, .. } => match of_io(source) {
            // No descriptors, ports or memory: no endpoint can help.
            Cause::LimitReached => Outcome::new(Party::Us, Cause::LimitReached),
            cause => Outcome::new(Party::Upstream, cause),
        },
        Error::TimedOut { .. } => Outcome::new(Party::Upstream, Cause::TimedOut),
        Error::Closed { .. } => Outcome::new(Party::Upstream, Cause::Reset),
        Error::NoIdentity => Outcome::new(Party::Us, Cause::NoIdentity),
        Error::WrongIdentity { .. } => Outcome::new(Party::Upstream, Cause::WrongIdentity),
        Error::Tls { .. } => Outcome::new(Party::Upstream, Cause::TlsFailed),
        Error::Http2 { source, .. } if source.is_io() => Outcome::new(Party::Upstream, Cause::Reset),
        Error::Http2 { .. } => Outcome::new(Party::Upstream, Cause::ProtocolError),
        Error::Refused {
            refusal: Some(refusal),
            ..
        } => of_answer(*refusal),
        Error::Refused { status: 401, .. } => Outcome::new(Party::Policy, Cause::Denied),
        Error::Refused { status: 503, .. } => Outcome::new(Party::Upstream, Cause::ConnectionRefused),
        Error::Refused { .. } => Outcome::new(Party::Upstream, Cause::ProtocolError),
    }
}

/// What this host is short of, where that is why.
pub(super) fn lacking(error: &Error) -> Option<Resources> {
    match error {
        Error::Connect { source, .. } if of_io(source) == Cause::LimitReached => Some(Resources::of(source)),
        _ => None,
    }
}

/// A refusal that came from, or goes to, the other proxy.
pub(super) fn of_answer(refusal: Refusal) -> Outcome {
    match refusal {
        Refusal::ConnectionRefused => Outcome::new(Party::Upstream, Cause::ConnectionRefused),
        Refusal::Unroutable => Outcome::new(Party::Upstream, Cause::Unreachable),
        Refusal::TimedOut => Outcome::new(Party::Upstream, Cause::TimedOut),
        Refusal::Denied => Outcome::new(Party::Policy, Cause::Denied),
        Refusal::LimitReached => Outcome::new(Party::Upstream, Cause::LimitReached),
        Refusal::BadRequest => Outcome::new(Party::Client, Cause::ProtocolError),
        Refusal::UnknownDestination => Outcome::new(Party::Client, Cause::UnknownDestination),
    }
}

/// What the other proxy is told when the application cannot be reached.
pub(super) fn to_answer(error: &Error) -> Refusal {
    match of_error(error).cause {
        Cause::Unreachable => Refusal::Unroutable,
        Cause::TimedOut => Refusal::TimedOut,
        Cause::LimitReached => Refusal::LimitReached,
        _ => Refusal::ConnectionRefused,
    }
}

/// What the other proxy is told when a connection is ended while the application is dialled.
pub(super) fn of_cut(cut: Outcome) -> Refusal {
    match cut.by {
        Party::Policy => Refusal::Denied,
        // There is no room for it.
        _ => Refusal::LimitReached,
    }
}

/// What an application is told whose connect() waits for the answer (wire.md 1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Refused,
    Unreachable(Unreachable),
}

pub(super) fn to_application(error: &Error) -> Answer {
    let errno = match error {
        Error::Connect { source, .. } => source.raw_os_error().map(Errno::from_raw),
        _ => None,
    };
    match (of_error(error).cause, errno) {
        (Cause::Unreachable, Some(Errno::ENETUNREACH)) => Answer::Unreachable(Unreachable::Net),
        (Cause::Unreachable, Some(Errno::EACCES)) => Answer::Unreachable(Unreachable::Prohibited),
        (Cause::Unreachable, _) => Answer::Unreachable(Unreachable::Host),
        _ => Answer::Refused,
    }
}

/// May another endpoint do better? Not where the answer lies with us or with policy.
pub(super) fn is_endpoints_fault(outcome: Outcome) -> bool {
    outcome.by == Party::Upstream
}

/// A program that is not there, or not yet: clients ask again and again, and are told. A line of the log for each
/// would cost more than the answer, and let any of them fill the disk.
pub(super) fn is_everyday(outcome: Outcome) -> bool {
    matches!(outcome.cause, Cause::ConnectionRefused | Cause::Unreachable)
}

/// Says that an endpoint did not take a connection.
pub(super) fn log(error: &Error, (client, destination): (SocketAddr, OriginalDst), endpoint: SocketAddr) {
    if is_everyday(of_error(error)) {
        tracing::debug!(%client, %destination, %endpoint, error = error_chain(error), "outbound connection failed");
    } else {
        tracing::info!(%client, %destination, %endpoint, error = error_chain(error), "outbound connection failed");
    }
}

pub(super) fn of_end(end: &End) -> Outcome {
    match end {
        End::Eof => Outcome::new(Party::Client, Cause::Eof),
        End::Idle => Outcome::new(Party::Us, Cause::IdleTimeout),
        End::Broken {
            by: Side::Downstream,
            error,
        } => Outcome::new(Party::Client, of_io(error)),
        End::Broken {
            by: Side::Upstream,
            error,
        } => Outcome::new(Party::Upstream, of_io(error)),
    }
}

fn of_io(error: &io::Error) -> Cause {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
        NetworkUnreachable, QuotaExceeded, TimedOut,
    };
    match error.kind() {
        ConnectionRefused => Cause::ConnectionRefused,
        ConnectionReset | ConnectionAborted | BrokenPipe => Cause::Reset,
        HostUnreachable | NetworkUnreachable => Cause::Unreachable,
        TimedOut => Cause::TimedOut,
        QuotaExceeded => Cause::LimitReached,
        _ => match error.raw_os_error().map(Errno::from_raw) {
            // What a router has said that forbids it.
            Some(Errno::EACCES) => Cause::Unreachable,
            Some(Errno::EMFILE | Errno::ENFILE | Errno::EADDRNOTAVAIL | Errno::ENOBUFS | Errno::ENOMEM) => {
                Cause::LimitReached
            }
            _ => Cause::Io,
        },
    }
}
