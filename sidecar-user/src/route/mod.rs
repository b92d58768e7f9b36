//! WHERE TO? Original destination and snapshot in, upstream out. Pure: randomness is an argument, nothing is
//! dialled, nothing is waited for.

mod balance;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::snapshot::Load;
use crate::model::{Endpoint, OriginalDst, Service, Snapshot, SpiffeId, TunnelProtocol, Workload};

/// What happens to destinations that the registry does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// They are dialled as the application asked, in plain TCP.
    #[default]
    PassThrough,
    /// They are refused, but for DNS.
    Refuse,
}

/// Resolvers ask over UDP, which is not intercepted, and again over TCP when an answer is too long for it. Whoever may
/// do the one may do the other, or long answers fail.
pub const DNS: u16 = 53;

#[derive(Debug)]
pub enum Route {
    /// Through a tunnel to the endpoint's own proxy.
    Mesh(Upstream),
    /// In plain TCP: the endpoint is not in the mesh, or not in the registry.
    Direct(Upstream),
    Refuse(Refusal),
}

/// Where one connection goes.
#[derive(Debug)]
pub struct Upstream {
    /// The application's own address and port.
    pub endpoint: SocketAddr,
    pub service: Option<Arc<Service>>,
    /// Absent for destinations outside the registry.
    pub target: Option<Target>,
}

/// The workload behind an upstream.
#[derive(Clone, Debug)]
pub struct Target {
    pub workload: Arc<Workload>,
    pub load: Arc<Load>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The service exists, but nobody serves that port now (or everybody was tried).
    NoEndpoint,
    /// The registry does not know the address, and only what it knows is allowed.
    UnknownDestination,
    /// The destination demands a waypoint, and going around it would go around the rules it enforces.
    NeedsWaypoint,
}

impl Upstream {
    /// The identities that the peer may prove: its workload's own, or one that the service names.
    pub fn expected(&self) -> Vec<SpiffeId> {
        let own = self.target.iter().map(|t| t.workload.identity.clone());
        let named = self
            .service
            .iter()
            .flat_map(|s| s.subject_alt_names.iter().cloned());
        own.chain(named).collect()
    }
}

/// Chooses an upstream for `dst`. Endpoints in `tried` are not chosen again. `random(n)` is uniform in `0..n`.
pub fn route(
    world: &Snapshot,
    unknown: Unknown,
    dst: OriginalDst,
    tried: &[SocketAddr],
    random: &mut dyn FnMut(usize) -> usize,
) -> Route {
    let OriginalDst(dst) = dst;
    if world.is_behind_waypoint(dst.ip()) {
        return Route::Refuse(Refusal::NeedsWaypoint);
    }
    if let Some((service, endpoints)) = world.service_at(dst) {
        return to_service(service, endpoints, dst, tried, random);
    }
    if tried.contains(&dst) {
        return Route::Refuse(Refusal::NoEndpoint);
    }
    match (world.workload_by_address(dst.ip()), unknown) {
        (Some((workload, load)), _) => to_workload(workload, load, dst, None),
        (None, unknown) if unknown == Unknown::PassThrough || dst.port() == DNS => Route::Direct(Upstream {
            endpoint: dst,
            service: None,
            target: None,
        }),
        (None, _) => Route::Refuse(Refusal::UnknownDestination),
    }
}

fn to_service(
    service: &Arc<Service>,
    endpoints: &[Endpoint],
    dst: SocketAddr,
    tried: &[SocketAddr],
    random: &mut dyn FnMut(usize) -> usize,
) -> Route {
    let address = |e: &Endpoint| {
        let port = target_port(service, e, dst.port())?;
        Some(SocketAddr::new(like(dst.ip(), &e.workload.addresses)?, port))
    };
    let usable = |e: &Endpoint| e.workload.healthy && address(e).is_some_and(|a| !tried.contains(&a));
    let chosen = balance::least_of_two(endpoints, usable, random).and_then(|e| Some((e, address(e)?)));
    match chosen {
        Some((e, endpoint)) => to_workload(&e.workload, &e.load, endpoint, Some(service.clone())),
        None => Route::Refuse(Refusal::NoEndpoint),
    }
}

fn to_workload(
    workload: &Arc<Workload>,
    load: &Arc<Load>,
    endpoint: SocketAddr,
    service: Option<Arc<Service>>,
) -> Route {
    let target = Some(Target {
        workload: workload.clone(),
        load: load.clone(),
    });
    let upstream = Upstream {
        endpoint,
        service,
        target,
    };
    match workload.protocol {
        TunnelProtocol::Hbone => Route::Mesh(upstream),
        TunnelProtocol::None => Route::Direct(upstream),
    }
}

/// The endpoint's own map wins over the service's; a service target of 0 means that only the former counts.
fn target_port(service: &Service, endpoint: &Endpoint, port: u16) -> Option<u16> {
    let own = endpoint.ports.get(&port).or_else(|| service.ports.get(&port));
    own.copied().filter(|p| *p != 0)
}

/// An address of the family that the application dialled, else any.
fn like(dialled: IpAddr, addresses: &[IpAddr]) -> Option<IpAddr> {
    addresses
        .iter()
        .find(|a| a.is_ipv4() == dialled.is_ipv4())
        .or(addresses.first())
        .copied()
}

#[cfg(test)]
mod tests;
