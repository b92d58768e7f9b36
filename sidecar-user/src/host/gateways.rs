//! The next hops of the routes of a network namespace. In a pod they are addresses of its node, by which it reaches everything else and
//! from which the node reaches it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::SockProtocol;

use super::Error;
use super::netlink::Netlink;
use super::routes::{dump, ip};

/// Of the calling thread's namespace.
pub fn gateways() -> Result<BTreeSet<IpAddr>, Error> {
    let asked = || {
        let mut kernel = Netlink::open(SockProtocol::NetlinkRoute)?;
        let mut found = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut all = RouteMessage::default();
            all.header.address_family = family;
            for route in dump(&mut kernel, RouteNetlinkMessage::GetRoute(all))? {
                if let RouteNetlinkMessage::NewRoute(route) = route {
                    found.extend(next_hop(&route));
                }
            }
        }
        Ok(found)
    };
    asked().map_err(Error::asking("next hops"))
}

pub(super) fn next_hop(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        _ => None,
    })
}
