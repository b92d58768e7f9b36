//! The inbound walk: from a mesh peer's tunnel, or in plaintext steered here by the kernel, to the application.
//!
//! `Accepted` → peer identity → `Permit` or denial → `deliver` (which needs the permit) → relay → the flow is
//! recorded once.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use tokio::net::TcpStream;

use super::join::join;
use super::limits::{Arrival, Resources};
use super::outcome;
use super::shard::Shard;
use crate::error_chain;
use crate::model::addr::canonical;
use crate::model::{
    Cause, ClientAddr, Direction, Endpoint, Flow, Outcome, Party, Service, ServiceName, Snapshot, SpiffeId,
    Transport,
};
use crate::observe::{Meters, OpenFlow};
use crate::policy::{self, Claim, Denied, Facts, Permit};
use crate::relay::Port;
use crate::transport::hbone::Refusal;
use crate::transport::hbone::server::{Incoming, Session};
use crate::transport::tls::Peer;
use crate::transport::{Error, tcp};

/// The tunnel that a stream came through.
struct Tunnel {
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
    let accepted = async {
        let local = tcp.local_addr().map_err(|e| Error::Tls {
            addr: client.0,
            source: Rc::new(e),
        })?;
        let lacking = |what| {
            shard.limited.report(what);
            Error::Refused {
                addr: client.0,
                status: 503,
                refusal: Some(Refusal::LimitReached),
            }
        };
        if !admitted {
            Port::reset(&mut tcp);
            return Err(lacking(Resources::Descriptors));
        }
        let Some(_slot) = shard.enter_handshake() else {
            return Err(lacking(Resources::Places));
        };
        let (config, own_end) = shard.tls_server()?;
        let session = Session::accept(tcp, client.0, config, shard.limits).await?;
        Ok((session, canonical(local).ip(), own_end))
    };
    let (session, local, own_end) = match accepted.await {
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
        peer: session.peer.clone(),
        client,
        local,
    });
    let each = |incoming| {
        tokio::task::spawn_local(stream(shard.clone(), tunnel.clone(), incoming));
    };
    let _tunnel = shard.enter_tunnel();
    // A proof that has ended carries no new streams; the client opens its next ones on a tunnel with a newer one.
    let expires = tunnel
        .peer
        .expires
        .min(own_end)
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    let drained = shard.drained();
    let no_more = async move {
        tokio::select! {
            () = drained => {}
            () = tokio::time::sleep(expires) => {}
        }
    };
    if let Err(error) = session.serve(no_more, &shard.inbound_tunnels, each).await {
        tracing::debug!(%client, peer = %tunnel.peer.id, %error, "tunnel ended");
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
async fn stream(shard: Rc<Shard>, tunnel: Rc<Tunnel>, incoming: Incoming) {
    let _open = shard.enter();
    let known = tunnelled(&shard, &tunnel, &incoming);
    let client = known.client;
    let flow = shard.observe.open(known);
    let delivered = async {
        let (destination, service) = destination(&shard, tunnel.local, &incoming)?;
        flow.update(|f| {
            f.original_dst = Some(destination);
            f.service = service.or(f.service.take());
        });
        let delivered = if destination.port() == shard.status_port {
            // Everybody outside the mesh reaches metrics and probes without being asked, so no policy is here either.
            reach(&shard, destination, client, &flow).await
        } else {
            let permit = admit(&shard, Some(&tunnel.peer.id), tunnel.client.0, destination)?;
            deliver(&shard, permit, client, &flow).await
        };
        delivered.map_err(|e| outcome::to_answer(&e))
    };
    let outcome = match delivered.await {
        Err(refusal) => {
            incoming.refuse(refusal);
            match refusal {
                Refusal::LimitReached => Outcome::new(Party::Us, Cause::LimitReached),
                // Behind us is the application, before us the client.
                refusal => outcome::of_answer(refusal),
            }
        }
        // The application is there: only now does the peer's application learn that it is connected.
        Ok(mut app) => match incoming.accept() {
            Ok(mut down) => join(&shard, &mut down, &mut app, &flow).await,
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
        stream: mut client_side,
        client,
        admitted,
    } = arrival;
    let _open = shard.enter();
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
        let permit = admit(&shard, None, client.0, destination).map_err(outcome::of_answer)?;
        shard.meters.plaintext_accepted.inc();
        deliver(&shard, permit, client.0, &flow)
            .await
            .map_err(|e| outcome::of_error(&e))
    };
    let outcome = match delivered.await {
        Ok(mut app) => join(&shard, &mut client_side, &mut app, &flow).await,
        Err(outcome) => {
            Port::reset(&mut client_side);
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

/// Asks policy, by the registry's entry of this workload. An address that the registry does not list is no way around
/// it: the pod's other addresses tell which workload this is, and where none does, the namespace's policies hold.
fn admit(
    shard: &Shard,
    source: Option<&SpiffeId>,
    client: SocketAddr,
    destination: SocketAddr,
) -> Result<Permit, Refusal> {
    let world = shard.world();
    let mut own = std::iter::once(destination.ip()).chain(shard.addresses.iter().copied());
    let policies = match own.find_map(|ip| world.workload_by_address(ip)) {
        Some((workload, _)) => world.policies_for(workload),
        None => world.policies_in(shard.id.namespace()),
    };
    let facts = Facts {
        source,
        source_ip: client.ip(),
        destination,
    };
    policy::admit(shard.mode, &policies, &facts).map_err(|denied| {
        count_denied(&shard.meters, &denied, source);
        tracing::info!(%client, %destination, peer = source.map(SpiffeId::as_str), %denied, "denied");
        Refusal::Denied
    })
}

fn count_denied(meters: &Meters, denied: &Denied, source: Option<&SpiffeId>) {
    match denied {
        Denied::Plaintext => meters.plaintext_refused.inc(),
        Denied::Policy(_) => meters.denied.of(source.map_or("plain", |_| "hbone")).inc(),
    };
}

/// Dials the application, on the pod's own address, so that a port bound to loopback only stays unreachable. The
/// application sees `client`, which has to be the one that policy believes in.
async fn deliver(
    shard: &Shard,
    permit: Permit,
    client: SocketAddr,
    flow: &OpenFlow,
) -> Result<TcpStream, Error> {
    reach(shard, permit.destination(), client, flow).await
}

/// Delivers without a permit; only for what needs none.
async fn reach(
    shard: &Shard,
    destination: SocketAddr,
    client: SocketAddr,
    flow: &OpenFlow,
) -> Result<TcpStream, Error> {
    let start = Instant::now();
    flow.update(|f| f.chosen_dst = Some(destination));
    match dial(shard, destination, client).await {
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
async fn dial(shard: &Shard, destination: SocketAddr, client: SocketAddr) -> Result<TcpStream, Error> {
    let mark = |socket: BorrowedFd<'_>| shard.present(socket, client);
    let from = async |source| {
        let from = tcp::From {
            source,
            ..tcp::From::default()
        };
        let (app, _) = tcp::dial(destination, mark, from, shard.limits.connect).await?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Observer;
    use crate::policy::authorization::Denial;

    #[test]
    fn what_the_mode_refuses_is_not_what_a_policy_denies() {
        let observer = Observer::new();
        let (meters, peer) = (
            observer.meters(),
            SpiffeId::new("td.test", "demo", "web").unwrap(),
        );
        let by_policy = Denied::Policy(Denial::NotAllowed);
        count_denied(meters, &Denied::Plaintext, None);
        count_denied(meters, &by_policy, None);
        count_denied(meters, &by_policy, Some(&peer));
        count_denied(meters, &by_policy, Some(&peer));
        let counted = [
            meters.plaintext_refused.get(),
            meters.denied.of("plain").get(),
            meters.denied.of("hbone").get(),
        ];
        assert_eq!(counted, [1, 1, 2]);
    }
}
