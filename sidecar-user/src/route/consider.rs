//! What `route` makes of each endpoint of a service, for whoever asks why: the same groups, the same balancing, and no choice.

use std::net::SocketAddr;

use super::{Request, Sight, balance, rank};
use crate::model::{Endpoint, Service};

/// One endpoint, as a connection that begins now sees it.
#[derive(Clone, Debug)]
pub struct Considered<'e> {
    pub endpoint: &'e Endpoint,
    /// Where it would be dialled; `None`: it does not serve the port.
    pub address: Option<SocketAddr>,
    pub what: Consideration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Consideration {
    /// The connection goes to it, or to another one like it; with this probability to this one.
    Candidate {
        chance: f64,
    },
    /// Others are preferred as long as one of them can be used.
    Standby,
    /// The service is only for clients that are nearer.
    Excluded,
    /// The registry says that it is not ready, and the service takes only those that are.
    NotReady,
    NoPort,
}

/// Every endpoint of the service, in the order of `endpoints`. What `request` has tried already is not considered.
pub fn consider<'e>(
    service: &Service,
    endpoints: &'e [Endpoint],
    request: &Request<'_>,
) -> Vec<Considered<'e>> {
    let (balancing, sight) = (&service.balancing, Sight::new(service, endpoints, request.dst));
    let groups = || rank::groups(balancing, endpoints, request.from, request.stays_with);
    let is_usable = |e: &Endpoint| {
        let is_new = |address| !request.tried.contains(&address);
        balancing.is_healthy_enough(&e.workload) && sight.address(e).is_some_and(is_new)
    };
    let group = groups()
        .find(|group| group.iter().any(is_usable))
        .unwrap_or_default();
    let allowed = groups().last().unwrap_or_default();
    let chances = balance::chances(group, is_usable);
    let chance_of = |e: &Endpoint| Some(chances[position(group, e)?]);
    let what = |e: &Endpoint, address: Option<SocketAddr>| {
        if address.is_none() {
            return Consideration::NoPort;
        }
        if !balancing.is_healthy_enough(&e.workload) {
            return Consideration::NotReady;
        }
        match chance_of(e) {
            Some(chance) => Consideration::Candidate { chance },
            None if position(allowed, e).is_some() => Consideration::Standby,
            None => Consideration::Excluded,
        }
    };
    let new = endpoints
        .iter()
        .map(|endpoint| (endpoint, sight.address(endpoint)));
    new.filter(|(_, address)| address.is_none_or(|address| !request.tried.contains(&address)))
        .map(|(endpoint, address)| Considered {
            endpoint,
            address,
            what: what(endpoint, address),
        })
        .collect()
}

/// Of an endpoint in a part of the slice that it stands in.
fn position(part: &[Endpoint], endpoint: &Endpoint) -> Option<usize> {
    let offset = std::ptr::from_ref(endpoint)
        .addr()
        .checked_sub(part.as_ptr().addr())?;
    Some(offset / size_of::<Endpoint>()).filter(|n| *n < part.len())
}
