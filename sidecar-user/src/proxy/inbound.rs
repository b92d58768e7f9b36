//! The inbound walk: from a mesh peer's tunnel, or in plaintext steered here by the kernel, to the application.
//!
//! `Accepted` → peer identity → `Permit` or denial → `deliver` (which needs the permit) → relay → the flow is
//! recorded once.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use super::authorize::admit;
use super::contain::Abortive;
use super::join::{join, join_guest};
use super::limits::{Arrival, Resources};
use super::live::{Inbound, TunnelId};
use super::shard::context::Shard;
use super::tunnels::Farewell;
use super::{outcome, patience};
use crate::error_chain;
use crate::model::addr::canonical;
use crate::model::{
    Cause, ClientAddr, Direction, Endpoint, Flow, Outcome, Party, Service, ServiceName, Snapshot, Transport,
};
use crate::observe::OpenFlow;
use crate::policy::{self, Claim, Permit};
use crate::relay::Port;
use crate::transport::hbone::Refusal;
use crate::transport::hbone::server::{Ended, Incoming, Session};
use crate::transport::tcp::{self, Dialled};
use crate::transport::tls::Peer;
use crate::transport::{Error, Step};

/// The tunnel that a stream came through.
struct Tunnel {
    id: TunnelId,
    peer: Peer,
    client: ClientAddr,
    /// The address of ours that the peer dialled.
    local: IpAddr,
}

/// A connection to the HBONE port: handshakes, then one walk for each CONNECT.
pub(super) async fn hbone(shard: Rc<Shard>, arrival: Arrival) {
    let Arrival {
        stream: mut tcp,
        client,
        admitted,
    } = arrival;
    let opened = SystemTime::now();
    let guest = shard.doors.hbone.enter(Some(client.0.ip()));
    let lacking = |what| {
        shard.limited.report(what);
        Error::Refused {
            addr: client.0,
            status: 503,
            refusal: Some(Refusal::LimitReached),
        }
    };
    let accepted = async {
        let local = tcp.local_addr().map_err(|e| Error::Tls {
            addr: client.0,
            source: Rc::new(e),
        })?;
        if !admitted {
            Port::reset(&mut tcp);
            return Err(lacking(Resources::Descriptors));
        }
        let first = guest.first_byte_limit();
        if tokio::time::timeout(first, tcp.readable()).await.is_err() {
            Port::reset(&mut tcp);
            return Err(Error::TimedOut {
                addr: client.0,
                what: Step::FirstByte,
                after: first,
            });
        }
        patience::first(shard.svids()).await;
        let (config, own_end) = shard.tls_server()?;
        let session = Session::accept(tcp, client.0, config, shard.limits, &shard.budget).await?;
        Ok((session, canonical(local).ip(), own_end))
    };
    let accepted = tokio::select! {
        accepted = accepted => accepted,
        // Its place was given to one who came later.
        () = guest.evicted() => Err(lacking(Resources::Places)),
    };
    let accepted = accepted.and_then(|(session, local, own_end)| {
        // What is proved needs no place at the door.
        guest.proved();
        let id = shard.live.next_tunnel();
        let entered = shard.tunnels.enter(id, session.peer.clone(), session.streams());
        let entered = entered.ok_or_else(|| lacking(Resources::Places))?;
        Ok((session, local, own_end, id, entered))
    });
    drop(guest);
    let (session, local, own_end, id, entered) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            let outcome = refused_tunnel(&error);
            if outcome.cause != Cause::LimitReached {
                tracing::info!(%client, error = error_chain(&error), "tunnel refused");
            }
            let mut flow = Flow::new(Direction::Inbound, client.0, opened);
            flow.transport = Transport::Hbone;
            flow.destination_identity = Some(shard.id.clone());
            shard.observe.open(flow).close(outcome);
            return;
        }
    };
    let tunnel = Rc::new(Tunnel {
        id,
        peer: session.peer.clone(),
        client,
        local,
    });
    let each = |mut incoming: Incoming| {
        // Applications give up connects by the hundred: nobody is dialled for those.
        if incoming.is_gone() {
            shard.meters.streams_abandoned.inc();
        } else if entered.farewell() == Some(Farewell::Untrusted) {
            incoming.refuse(Refusal::Denied);
        } else {
            tokio::task::spawn_local(stream(shard.clone(), tunnel.clone(), incoming));
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

/// One CONNECT.
async fn stream(shard: Rc<Shard>, tunnel: Rc<Tunnel>, mut incoming: Incoming) {
    let _open = shard.enter();
    let known = tunnelled(&shard, &tunnel, &incoming);
    let client = known.client;
    let flow = shard.observe.open(known);
    let asked = destination(&shard, tunnel.local, &incoming);
    let delivered = async {
        let (destination, service) = asked?;
        flow.update(|f| {
            f.original_dst = Some(destination);
            f.service = service.or(f.service.take());
        });
        let (goal, live) = if destination.port() == shard.status_port {
            (Goal::Status(destination), shard.live.enter(None))
        } else {
            let (permit, live) = admit(
                &shard,
                Inbound {
                    source: Some(tunnel.peer.id.clone()),
                    from: tunnel.client.0,
                    destination,
                    tunnel: Some(tunnel.id),
                },
            )?;
            (Goal::Application(permit), live)
        };
        match live
            .unless_cut(deliver(&shard, goal, client, tunnel.client, &flow))
            .await
        {
            Ok(Ok(app)) => Ok((app, live)),
            Ok(Err(error)) => Err(outcome::to_answer(&error)),
            Err(cut) => Err(outcome::of_cut(cut)),
        }
    };
    let delivered = tokio::select! {
        delivered = Box::pin(delivered) => delivered,
        // Nothing is dialled any longer for a client that has gone.
        () = incoming.gone() => return flow.close(Outcome::new(Party::Client, Cause::Reset)),
    };
    let outcome = match delivered {
        Err(refusal) => {
            incoming.refuse(refusal);
            match refusal {
                Refusal::LimitReached => Outcome::new(Party::Us, Cause::LimitReached),
                // Behind us is the application, before us the client.
                refusal => outcome::of_answer(refusal),
            }
        }
        // The application is there: only now does the peer's application learn that it is connected.
        Ok((mut app, live)) => match incoming.accept() {
            Ok(mut down) => join(&shard, &live, &mut down, &mut app, &flow).await,
            Err(_) => {
                Port::reset(&mut app);
                Outcome::new(Party::Client, Cause::Reset)
            }
        },
    };
    flow.close(outcome);
}

/// What is known of a tunnelled connection before anything is decided.
fn tunnelled(shard: &Shard, tunnel: &Tunnel, incoming: &Incoming) -> Flow {
    let world = shard.world();
    let forwarded = incoming.forwarded();
    let registered = forwarded.client.and_then(|c| world.workload_by_address(c.ip()));
    let client = policy::client_address(&Claim {
        claimed: forwarded.client,
        tunnel: tunnel.client.0,
        peer: &tunnel.peer.id,
        registered: registered.map(|(w, _)| &w.identity),
        own: &shard.addresses,
    });
    if forwarded
        .client
        .is_some_and(|claimed| canonical(claimed) != client)
    {
        shard.meters.client_claims_refused.inc();
    }
    let mut flow = Flow::new(Direction::Inbound, client, SystemTime::now());
    flow.transport = Transport::Hbone;
    flow.tls = Some(tunnel.peer.facts.clone());
    flow.source_identity = Some(tunnel.peer.id.clone());
    flow.destination_identity = Some(shard.id.clone());
    let named = forwarded.host.and_then(|host| ours(shard, &world, &host));
    flow.service = named.map(|(service, _)| service.name.clone());
    flow
}

/// A connection from outside the mesh, or from a pod without a sidecar.
pub(super) async fn plaintext(shard: Rc<Shard>, arrival: Arrival) {
    let Arrival {
        stream,
        client,
        admitted,
    } = arrival;
    if shard.nonces.is_one(Direction::Inbound, &stream, client) {
        return;
    }
    let mut client_side = Abortive::new(stream);
    let _open = shard.enter();
    let guest = shard.doors.plaintext.enter(Some(client.0.ip()));
    let mut flow = Flow::new(Direction::Inbound, client.0, SystemTime::now());
    flow.destination_identity = Some(shard.id.clone());
    let flow = shard.observe.open(flow);
    let delivered = async {
        // Steering by sk_lookup leaves the address that the client dialled on the socket.
        let dialled = client_side
            .local_addr()
            .map_err(|_| Outcome::new(Party::Client, Cause::Reset))?;
        let destination = canonical(dialled);
        flow.update(|f| f.original_dst = Some(destination));
        if !admitted {
            shard.limited.report(Resources::Descriptors);
            return Err(Outcome::new(Party::Us, Cause::LimitReached));
        }
        if shard.is_own_port(destination.port()) {
            return Err(Outcome::new(Party::Client, Cause::Loop));
        }
        let inbound = Inbound {
            source: None,
            from: client.0,
            destination,
            tunnel: None,
        };
        let (permit, live) = admit(&shard, inbound).map_err(outcome::of_answer)?;
        shard.meters.plaintext_accepted.inc();
        let app = live
            .unless_cut(deliver(
                &shard,
                Goal::Application(permit),
                client.0,
                client,
                &flow,
            ))
            .await?;
        Ok((app.map_err(|e| outcome::of_error(&e))?, live))
    };
    let delivered = tokio::select! {
        delivered = Box::pin(delivered) => delivered,
        // Its place was given to one who came later.
        () = guest.evicted() => Err(Outcome::new(Party::Us, Cause::LimitReached)),
    };
    let outcome = match delivered {
        Ok((mut app, live)) => join_guest(&shard, (&live, &guest), &mut *client_side, &mut app, &flow).await,
        Err(outcome) => {
            Port::reset(&mut *client_side);
            outcome
        }
    };
    drop(client_side);
    flow.close(outcome);
}

/// Where a CONNECT wants to go: an address of ours, or a service that we serve (wire.md 1.5). Of the proxy's own ports
/// only to the one that is open to everybody.
fn destination(
    shard: &Shard,
    local: IpAddr,
    incoming: &Incoming,
) -> Result<(SocketAddr, Option<ServiceName>), Refusal> {
    let authority = incoming.authority()?;
    let port = authority.port_u16().ok_or(Refusal::BadRequest)?;
    let host = authority.host();
    let (port, service) = match host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
    {
        Ok(ip) if ip.to_canonical() == local => (port, None),
        Ok(_) => return Err(Refusal::BadRequest),
        Err(_) => {
            let (port, service) = served(shard, host, port).ok_or(Refusal::UnknownDestination)?;
            (port, Some(service))
        }
    };
    if shard.is_own_port(port) && port != shard.status_port {
        return Err(Refusal::UnknownDestination);
    }
    Ok((SocketAddr::new(local, port), service))
}

/// The target port of a service that this workload is an endpoint of.
fn served(shard: &Shard, host: &str, port: u16) -> Option<(u16, ServiceName)> {
    let world = shard.world();
    let (service, endpoint) = ours(shard, &world, host)?;
    let target = endpoint
        .ports
        .get(&port)
        .or_else(|| service.ports.get(&port))
        .copied()?;
    (target != 0).then(|| (target, service.name.clone()))
}

/// A service that this workload is an endpoint of. A peer may name any other, and would have its traffic counted there.
fn ours<'w>(shard: &Shard, world: &'w Snapshot, host: &str) -> Option<(&'w Service, &'w Endpoint)> {
    let (service, endpoints) = world.service_by_hostname(shard.id.namespace(), host)?;
    let ours = |ip: &IpAddr| shard.addresses.contains(ip);
    let endpoint = endpoints.iter().find(|e| e.workload.addresses.iter().any(ours))?;
    Some((service, endpoint))
}

/// Where a connection is delivered to.
enum Goal {
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
async fn deliver(
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
            flow.update(|f| f.connect_time = Some(start.elapsed()));
            Ok(app)
        }
        Err(error) => {
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
