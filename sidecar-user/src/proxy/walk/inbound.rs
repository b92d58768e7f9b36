//! The inbound walk: from a mesh peer's tunnel, or in plaintext steered here by the kernel, to the application.
//!
//! `Accepted` → the peer's identity (`tunnel.rs`) → `Permit` or denial → `deliver` (which needs the permit) → relay → the
//! flow is recorded once.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::SystemTime;

use super::super::authorize::admit;
use super::super::contain::Abortive;
use super::super::limits::{Arrival, Resources};
use super::super::live::{Inbound, TunnelId};
use super::super::outcome;
use super::super::shard::context::Shard;
use super::deliver::{Goal, deliver};
use super::relay::{join, join_guest};
use crate::model::addr::canonical;
use crate::model::{
    Cause, ClientAddr, Direction, Endpoint, Flow, Outcome, Party, Service, ServiceName, Snapshot, Transport,
};
use crate::policy::{self, Claim};
use crate::relay::Port;
use crate::transport::hbone::Refusal;
use crate::transport::hbone::server::Incoming;
use crate::transport::tls::Peer;

/// The tunnel that a stream came through.
pub(super) struct Tunnel {
    pub(super) id: TunnelId,
    pub(super) peer: Peer,
    pub(super) client: ClientAddr,
    /// The address of ours that the peer dialled.
    pub(super) local: IpAddr,
}

/// Why a CONNECT has not reached the application.
enum Undelivered {
    Refused(Refusal),
    /// The registry has not told who may come in.
    Undiscovered,
    /// This proxy ends. The client is to ask the next one.
    Ended(Outcome),
}

/// One CONNECT.
pub(super) async fn stream(shard: Rc<Shard>, tunnel: Rc<Tunnel>, mut incoming: Incoming) {
    let _open = shard.enter();
    let known = tunnelled(&shard, &tunnel, &incoming);
    let client = known.client;
    let flow = shard.observe.open(known);
    let asked = destination(&shard, tunnel.local, &incoming);
    let delivered = async {
        let (destination, service) = asked.map_err(Undelivered::Refused)?;
        flow.update(|f| {
            f.original_dst = Some(destination);
            f.service = service.or(f.service.take());
        });
        let (goal, live) = if destination.port() == shard.status_port {
            (Goal::Status(destination), shard.live.enter(None))
        } else {
            if !shard.can_judge(tunnel.client.0.ip()).await {
                return Err(Undelivered::Undiscovered);
            }
            let (permit, live) = admit(
                &shard,
                &flow,
                Inbound {
                    source: Some(tunnel.peer.id.clone()),
                    from: tunnel.client.0,
                    destination,
                    tunnel: Some(tunnel.id),
                },
            )
            .map_err(Undelivered::Refused)?;
            (Goal::Application(permit), live)
        };
        match live
            .unless_cut(deliver(&shard, goal, client, tunnel.client, &flow))
            .await
        {
            Ok(Ok(app)) => Ok((app, live)),
            Ok(Err(error)) => Err(Undelivered::Refused(outcome::to_answer(&error))),
            Err(cut) if cut.cause == Cause::Shutdown => Err(Undelivered::Ended(cut)),
            Err(cut) => Err(Undelivered::Refused(outcome::of_cut(cut))),
        }
    };
    let delivered = tokio::select! {
        delivered = Box::pin(delivered) => delivered,
        // Nothing is dialled any longer for a client that has gone.
        () = incoming.gone() => return flow.close(Outcome::new(Party::Client, Cause::Reset)),
    };
    let outcome = match delivered {
        Err(Undelivered::Ended(cut)) => {
            incoming.leave_unprocessed();
            cut
        }
        Err(Undelivered::Undiscovered) => {
            incoming.refuse(Refusal::Denied);
            Outcome::new(Party::Us, Cause::NoDiscovery)
        }
        Err(Undelivered::Refused(refusal)) => {
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
pub(in crate::proxy) async fn plaintext(shard: Rc<Shard>, arrival: Arrival) {
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
        if !shard.can_judge(client.0.ip()).await {
            return Err(Outcome::new(Party::Us, Cause::NoDiscovery));
        }
        let inbound = Inbound {
            source: None,
            from: client.0,
            destination,
            tunnel: None,
        };
        let (permit, live) = admit(&shard, &flow, inbound).map_err(outcome::of_answer)?;
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
