//! A mesh peer's tunnel, from its TCP connection to its end: handshakes, how long it takes new streams, when it is told to
//! go. Each of its streams is a walk of its own, in `inbound.rs`.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::super::limits::{Arrival, Resources};
use super::super::outcome;
use super::super::shard::context::Shard;
use super::super::tunnels::{Entered, Farewell};
use super::inbound::{self, Tunnel};
use super::patience;
use crate::error_chain;
use crate::model::addr::canonical;
use crate::model::{Cause, ClientAddr, Decided, Direction, Failure, Flow, Outcome, Party, Transport};
use crate::relay::Port;
use crate::transport::hbone::Refusal;
use crate::transport::hbone::server::{Ended, Incoming, Session};
use crate::transport::{Error, Step};

/// A connection to the HBONE port: handshakes, then one walk for each CONNECT.
pub(in crate::proxy) async fn serve(shard: Rc<Shard>, arrival: Arrival) {
    let (client, opened) = (arrival.client, SystemTime::now());
    match accept(&shard, arrival).await {
        // On the heap, as the handshakes are: a connection that has said nothing takes no room for what may follow.
        Ok(established) => Box::pin(carry(shard, established)).await,
        Err(error) => {
            let outcome = refused_tunnel(&error);
            if outcome.cause != Cause::LimitReached {
                tracing::info!(%client, error = error_chain(&error), "tunnel refused");
            }
            let mut flow = Flow::new(Direction::Inbound, client.0, opened);
            flow.transport = Transport::Hbone;
            flow.destination_identity = Some(shard.id.clone());
            let failure = Failure::new(outcome, &error_chain(&error));
            flow.decided(SystemTime::now(), Decided::Unproved(Box::new(failure)));
            shard.observe.open(flow).close(outcome);
        }
    }
}

/// A tunnel whose peer has proved who it is, and that stands among those of its identity.
struct Established {
    session: Session,
    tunnel: Rc<Tunnel>,
    entered: Entered,
    /// When the certificate ends that the peer was shown.
    own_end: SystemTime,
}

/// Until its peer has proved who it is, a connection holds a place at the door that it may lose.
async fn accept(shard: &Shard, arrival: Arrival) -> Result<Established, Error> {
    let client = arrival.client;
    let guest = shard.doors.hbone.enter(Some(client.0.ip()));
    let (session, local, own_end) = tokio::select! {
        accepted = handshakes(shard, arrival, guest.first_byte_limit()) => accepted?,
        // Its place was given to one who came later.
        () = guest.evicted() => return Err(lacking(shard, client, Resources::Places)),
    };
    // What is proved needs no place at the door.
    guest.proved();
    let id = shard.live.next_tunnel();
    let entered = shard
        .tunnels
        .enter(id, session.peer.clone(), session.streams())
        .ok_or_else(|| lacking(shard, client, Resources::Places))?;
    let tunnel = Rc::new(Tunnel {
        id,
        peer: session.peer.clone(),
        client,
        local,
    });
    Ok(Established {
        session,
        tunnel,
        entered,
        own_end,
    })
}

/// TLS and HTTP/2; then the session, the address of ours that the peer dialled, and when our own certificate ends.
async fn handshakes(
    shard: &Shard,
    arrival: Arrival,
    first_byte: Duration,
) -> Result<(Session, IpAddr, SystemTime), Error> {
    let Arrival {
        stream: mut tcp,
        client,
        admitted,
    } = arrival;
    let local = tcp.local_addr().map_err(|e| Error::Tls {
        addr: client.0,
        source: Rc::new(e),
    })?;
    if !admitted {
        Port::reset(&mut tcp);
        return Err(lacking(shard, client, Resources::Descriptors));
    }
    if tokio::time::timeout(first_byte, tcp.readable()).await.is_err() {
        Port::reset(&mut tcp);
        return Err(Error::TimedOut {
            addr: client.0,
            what: Step::FirstByte,
            after: first_byte,
        });
    }
    patience::first(shard.svids()).await;
    let (config, own_end) = shard.tls_server()?;
    let session = Box::pin(Session::accept(
        tcp,
        client.0,
        config,
        shard.limits,
        &shard.budget,
    ))
    .await?;
    Ok((session, canonical(local).ip(), own_end))
}

/// This host, or the peer's identity, has no more of that.
fn lacking(shard: &Shard, client: ClientAddr, what: Resources) -> Error {
    shard.limited.report(what);
    Error::Refused {
        addr: client.0,
        status: 503,
        refusal: Some(Refusal::LimitReached),
    }
}

/// Starts a walk for each CONNECT, until the tunnel ends.
async fn carry(shard: Rc<Shard>, established: Established) {
    let Established {
        session,
        tunnel,
        entered,
        own_end,
    } = established;
    let client = tunnel.client;
    let each = |mut incoming: Incoming| {
        // Applications give up connects by the hundred: nobody is dialled for those.
        if incoming.is_gone() {
            shard.meters.streams_abandoned.inc();
        } else if entered.farewell() == Some(Farewell::Untrusted) {
            incoming.refuse(Refusal::Denied);
        } else {
            tokio::task::spawn_local(inbound::stream(shard.clone(), tunnel.clone(), incoming));
        }
    };
    let _tunnel = shard.enter_tunnel();
    // A proof that has ended carries no new streams; the client opens its next ones on a tunnel with a newer one.
    let expires = expired(tunnel.peer.expires.min(own_end));
    let (closed, told) = (shard.closed(), entered.told());
    let no_more = async move {
        tokio::select! {
            () = closed => {}
            () = told => {}
            () = expires => {}
        }
    };
    let served = session.serve(no_more, &shard.inbound_tunnels, each).await;
    if entered.farewell() == Some(Farewell::Quota) {
        shard.meters.tunnel_ended(Farewell::Quota.name());
    }
    match served {
        Ok(()) => {}
        Err(Ended::Broken(error)) => {
            tracing::debug!(%client, peer = %tunnel.peer.id, %error, "tunnel ended");
        }
        Err(error @ Ended::Flood(flood)) => {
            shard.meters.tunnel_ended(flood.name());
            tracing::warn!(%client, peer = %tunnel.peer.id, %error, "tunnel ended");
        }
    }
}

/// Completes when it is so late. Timers stand still while a machine sleeps and ignore a clock that is set, so the clock is
/// looked at again and again.
async fn expired(at: SystemTime) {
    const LOOK: Duration = Duration::from_secs(60);
    while let Ok(left) = at.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

/// Here the peer is the client, so what is the upstream's fault elsewhere is the client's.
fn refused_tunnel(error: &Error) -> Outcome {
    match outcome::of_error(error) {
        Outcome {
            by: Party::Upstream,
            cause: Cause::LimitReached,
        } => Outcome::new(Party::Us, Cause::LimitReached),
        Outcome {
            by: Party::Upstream,
            cause,
        } => Outcome::new(Party::Client, cause),
        other => other,
    }
}
