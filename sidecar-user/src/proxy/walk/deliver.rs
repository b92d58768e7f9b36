//! The last step of the inbound walk to the application: it is dialled, and shown its client. Asks no policy: who is to be
//! delivered to an application has a permit.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use super::super::limits::Resources;
use super::super::outcome;
use super::super::shard::context::Shard;
use crate::error_chain;
use crate::model::{ClientAddr, Decided, Failure, Transport};
use crate::observe::OpenFlow;
use crate::policy::Permit;
use crate::transport::Error;
use crate::transport::tcp::{self, Dialled};

/// Where a connection is delivered to.
pub(super) enum Goal {
    Application(Permit),
    /// Our own metrics and probes. Everybody outside the mesh reaches them without being asked, so that no policy is asked
    /// about a peer either.
    Status(SocketAddr),
}

/// Dials the application, on the pod's own address, so that a port bound to loopback only stays unreachable. The
/// application sees `client`, which has to be the one that policy believes in.
///
/// Of those that wait for an application the oldest goes when there are too many, first the oldest from the same `caller`:
/// the kernel side has room for so many clients on their way, and whoever dials a program that does not answer must not
/// take it from everybody else.
pub(super) async fn deliver(
    shard: &Shard,
    goal: Goal,
    client: SocketAddr,
    caller: ClientAddr,
    flow: &OpenFlow,
) -> Result<Dialled, Error> {
    let start = Instant::now();
    let destination = match goal {
        Goal::Application(permit) => permit.destination(),
        Goal::Status(destination) => destination,
    };
    flow.update(|f| f.chosen_dst = Some(destination));
    let place = shard.doors.application.enter(Some(caller.0.ip()));
    let dialled = tokio::select! {
        dialled = dial(shard, destination, client) => dialled.map_err(|error| of_application(shard, error, destination)),
        () = place.evicted() => Err(no_place(destination)),
    };
    match dialled {
        Ok(app) => {
            flow.update(|f| {
                f.decided(SystemTime::now(), tried(destination, None));
                f.connect_time = Some(start.elapsed());
            });
            Ok(app)
        }
        Err(error) => {
            let failure = Failure::new(outcome::of_error(&error), &error_chain(&error));
            flow.decided(tried(destination, Some(failure)));
            match outcome::lacking(&error) {
                Some(what) => shard.limited.report(what),
                None if outcome::is_everyday(outcome::of_error(&error)) => {
                    tracing::debug!(%destination, error = error_chain(&error), "the application cannot be reached");
                }
                None => {
                    tracing::info!(%destination, error = error_chain(&error), "the application cannot be reached");
                }
            }
            Err(error)
        }
    }
}

fn tried(application: SocketAddr, failure: Option<Failure>) -> Decided {
    Decided::Tried {
        endpoint: application,
        transport: Transport::Plain,
        failure: failure.map(Box::new),
    }
}

/// From the pod's own address while it has ports left towards this application: all connections have one destination.
/// After that from addresses that nobody is shown, of which there are enough.
async fn dial(shard: &Shard, destination: SocketAddr, client: SocketAddr) -> Result<Dialled, Error> {
    let mark = |socket: BorrowedFd<'_>| shard.present(socket, client, destination);
    let door = shard.door(destination);
    let from = async |source| {
        let from = tcp::From {
            source,
            to_application: true,
            ..tcp::From::default()
        };
        let (app, _) = tcp::dial(door, mark, from, shard.limits.connect).await?;
        Ok(app)
    };
    let spare = || shard.spare_source(destination);
    let source = shard.is_crowded().then(spare).flatten();
    match from(source).await {
        Err(error) if source.is_none() && outcome::lacking(&error) == Some(Resources::Ports) => {
            shard.crowd();
            match spare() {
                Some(source) => from(Some(source)).await,
                None => Err(error),
            }
        }
        dialled => dialled,
    }
}

/// The application in the place of the address that the kernel side dials it by. That address is the pod's own, and so
/// reachable: EHOSTUNREACH comes from the kernel side, which has no room for the client.
fn of_application(shard: &Shard, error: Error, application: SocketAddr) -> Error {
    match error {
        Error::Connect { source, .. } if source.kind() == io::ErrorKind::HostUnreachable => {
            no_place(application)
        }
        Error::Connect { source, .. } => {
            if source.kind() == io::ErrorKind::ConnectionRefused {
                shard.refused_by(application);
            }
            Error::Connect {
                addr: application,
                source,
            }
        }
        Error::TimedOut { what, after, .. } => Error::TimedOut {
            addr: application,
            what,
            after,
        },
        other => other,
    }
}

fn no_place(application: SocketAddr) -> Error {
    let what = "too many connections wait for the applications of this pod to accept them";
    Error::Connect {
        addr: application,
        source: Rc::new(io::Error::new(io::ErrorKind::QuotaExceeded, what)),
    }
}
