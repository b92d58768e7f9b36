//! WHERE TO? Original destination and snapshot in, upstream out. Pure: randomness is an argument, nothing is
//! dialled, nothing is waited for.

mod balance;
mod consider;
mod rank;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::snapshot::Load;
use crate::model::{
    BalanceMode, Endpoint, Location, OriginalDst, Service, Snapshot, SpiffeId, TunnelProtocol, Workload,
};

pub use consider::{Consideration, Considered, consider};

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

/// One connection that wants an upstream.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    pub dst: OriginalDst,
    pub unknown: Unknown,
    /// Endpoints that are not chosen again.
    pub tried: &'r [SocketAddr],
    /// Where the client runs.
    pub from: Location<'r>,
    /// The uid of the workload that the client's connections to the service go to for as long as it can serve them.
    pub stays_with: Option<&'r str>,
}

#[derive(Debug)]
pub enum Route {
    /// Through a tunnel to the endpoint's own proxy.
    Mesh(Upstream),
    /// In plain TCP: the endpoint is not in the mesh, or not in the registry, or the service's own address.
    Direct(Upstream),
    Refuse(Refusal),
}

/// Where one connection goes.
#[derive(Debug)]
pub struct Upstream {
    /// The application's own address and port.
    pub endpoint: SocketAddr,
    pub service: Option<Arc<Service>>,
    /// Absent for destinations outside the registry, and for the own address of a service.
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

impl Route {
    pub fn upstream(&self) -> Option<&Upstream> {
        match self {
            Self::Mesh(up) | Self::Direct(up) => Some(up),
            Self::Refuse(_) => None,
        }
    }
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

/// Chooses an upstream. `random(n)` is uniform in `0..n`.
pub fn route(world: &Snapshot, request: &Request<'_>, random: &mut dyn FnMut(usize) -> usize) -> Route {
    let OriginalDst(dst) = request.dst;
    if world.is_behind_waypoint(dst.ip()) {
        return Route::Refuse(Refusal::NeedsWaypoint);
    }
    if let Some((service, endpoints)) = world.service_at(dst) {
        return match service.balancing.mode {
            BalanceMode::Passthrough => to_itself(request, Some(service.clone())),
            _ => to_service(service, endpoints, request, random),
        };
    }
    match (world.workload_by_address(dst.ip()), request.unknown) {
        _ if request.tried.contains(&dst) => Route::Refuse(Refusal::NoEndpoint),
        (Some((workload, load)), _) => to_workload(workload, load, dst, None),
        (None, unknown) if unknown == Unknown::PassThrough || dst.port() == DNS => to_itself(request, None),
        (None, _) => Route::Refuse(Refusal::UnknownDestination),
    }
}

fn to_service(
    service: &Arc<Service>,
    endpoints: &[Endpoint],
    request: &Request<'_>,
    random: &mut dyn FnMut(usize) -> usize,
) -> Route {
    let sight = Sight::new(service, endpoints, request.dst);
    let is_usable = |e: &Endpoint| {
        let is_new = |address| !request.tried.contains(&address);
        service.balancing.is_healthy_enough(&e.workload) && sight.address(e).is_some_and(is_new)
    };
    let (from, stays_with) = (request.from, request.stays_with);
    let chosen = rank::choose(&service.balancing, endpoints, from, stays_with, is_usable, random);
    match chosen.and_then(|e| Some((e, sight.address(e)?))) {
        Some((e, endpoint)) => to_workload(&e.workload, &e.load, endpoint, Some(service.clone())),
        None => Route::Refuse(Refusal::NoEndpoint),
    }
}

/// A service as a connection to one of its addresses sees it: where each endpoint would be dialled.
struct Sight<'s> {
    service: &'s Service,
    dst: SocketAddr,
    /// Some endpoint has an address of the family that was dialled.
    speaks_it: bool,
}

impl<'s> Sight<'s> {
    fn new(service: &'s Service, endpoints: &[Endpoint], OriginalDst(dst): OriginalDst) -> Self {
        let has_it = |e: &Endpoint| like(dst.ip(), &e.workload.addresses).is_some();
        Self {
            service,
            dst,
            speaks_it: endpoints.iter().any(has_it),
        }
    }

    /// `None`: it does not serve that port.
    fn address(&self, e: &Endpoint) -> Option<SocketAddr> {
        let port = target_port(self.service, e, self.dst.port())?;
        let ip = match self.speaks_it {
            true => like(self.dst.ip(), &e.workload.addresses)?,
            // A proxy goes from one family to the other where that is the only way.
            false => *e.workload.addresses.first()?,
        };
        Some(SocketAddr::new(ip, port))
    }
}

/// To the address that the application dialled, whoever is there.
fn to_itself(request: &Request<'_>, service: Option<Arc<Service>>) -> Route {
    let OriginalDst(dst) = request.dst;
    match request.tried.contains(&dst) {
        true => Route::Refuse(Refusal::NoEndpoint),
        false => Route::Direct(Upstream {
            endpoint: dst,
            service,
            target: None,
        }),
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

/// An address of the family that the application dialled.
fn like(dialled: IpAddr, addresses: &[IpAddr]) -> Option<IpAddr> {
    addresses
        .iter()
        .find(|a| a.is_ipv4() == dialled.is_ipv4())
        .copied()
}

#[cfg(test)]
mod tests;
