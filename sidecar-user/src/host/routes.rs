//! What the kernel would do with connections to any destination, as prefixes.
//!
//! The prefixes come from the routing tables, the answers from the kernel itself: it is asked about one address of each
//! prefix, as `ip route get` does. So metrics, next hops, preferred sources and the choice of a source address are
//! the kernel's own. Where policy routing decides by more than the destination, prefixes say nothing, and
//! [`Routes::policy`] says so.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use nix::sys::socket::SockProtocol;

use super::Error;
use super::netlink::Netlink;
use super::prefixes::sample;
use crate::model::network::Path;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    pub paths: BTreeMap<IpNet, Path>,
    /// Rules beyond the kernel's own decide, too, so that the paths are no answer.
    pub policy: bool,
}

/// The default routes, and prefixes in which connect() or the choice of a source address (RFC 6724) differs though no
/// route says so.
const ALWAYS: [&str; 12] = [
    "0.0.0.0/0",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/0",
    "2000::/3",
    "2001::/32",
    "2002::/16",
    "3ffe::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

pub fn routes() -> Result<Routes, Error> {
    let ask = || {
        let mut kernel = Netlink::open(SockProtocol::NetlinkRoute)?;
        let mut routes = Routes::default();
        let mut tables = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            routes.policy |= has_policy(&mut kernel, family)?;
            tables.extend(destinations(&mut kernel, family)?);
        }
        let has6 = tables.iter().any(|(net, kind)| is_address6(net, *kind));
        let mut prefixes: BTreeSet<IpNet> = ALWAYS.iter().filter_map(|p| p.parse().ok()).collect();
        prefixes.extend(tables.into_iter().map(|(net, _)| net));
        for prefix in &prefixes {
            let Some(ip) = sample(prefix, &prefixes) else {
                continue;
            };
            let mut path = path(&mut kernel, ip)?;
            // The kernel looks for an address to send from first.
            if let Path::Fails(errno) = &mut path
                && ip.is_ipv6()
                && !ip.is_multicast()
                && !has6
            {
                *errno = libc::EADDRNOTAVAIL as u32;
            }
            routes.paths.insert(*prefix, path);
        }
        Ok(routes)
    };
    ask().map_err(Error::asking("routes"))
}

/// Whether there are rules beside those that every namespace begins with.
fn has_policy(kernel: &mut Netlink, family: AddressFamily) -> io::Result<bool> {
    let mut all = RuleMessage::default();
    all.header.family = family;
    let rules = dump(kernel, RouteNetlinkMessage::GetRule(all))?;
    Ok(rules.iter().any(|rule| match rule {
        RouteNetlinkMessage::NewRule(rule) => !is_usual(rule),
        _ => false,
    }))
}

/// Sends everything to one of the three tables that are looked into here.
pub(super) fn is_usual(rule: &RuleMessage) -> bool {
    let table = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let unconditional = rule.attributes.iter().all(|attribute| {
        matches!(
            attribute,
            RuleAttribute::Table(_)
                | RuleAttribute::Priority(_)
                | RuleAttribute::Protocol(_)
                | RuleAttribute::SuppressPrefixLen(u32::MAX)
        )
    });
    let header = &rule.header;
    unconditional
        && header.action == RuleAction::ToTable
        && (header.src_len, header.dst_len, header.tos) == (0, 0, 0)
        && is_looked_into(table.unwrap_or(header.table.into()))
}

fn is_looked_into(table: u32) -> bool {
    let tables = [libc::RT_TABLE_LOCAL, libc::RT_TABLE_MAIN, libc::RT_TABLE_DEFAULT];
    tables.iter().any(|known| table == u32::from(*known))
}

/// Even `lo` has one, unless IPv6 is switched off.
pub(super) fn is_address6(net: &IpNet, kind: RouteType) -> bool {
    net.addr().is_ipv6() && kind == RouteType::Local
}

/// The destinations of all routes of the usual tables.
fn destinations(kernel: &mut Netlink, family: AddressFamily) -> io::Result<Vec<(IpNet, RouteType)>> {
    let mut all = RouteMessage::default();
    all.header.address_family = family;
    let routes = dump(kernel, RouteNetlinkMessage::GetRoute(all))?;
    Ok(routes
        .iter()
        .filter_map(|route| match route {
            RouteNetlinkMessage::NewRoute(route) => destination(route),
            _ => None,
        })
        .collect())
}

/// A kernel without a family has nothing of it.
fn dump(kernel: &mut Netlink, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    match kernel.dump(&request) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {
            Ok(Vec::new())
        }
        dumped => dumped,
    }
}

pub(super) fn destination(route: &RouteMessage) -> Option<(IpNet, RouteType)> {
    let (mut table, mut to) = (u32::from(route.header.table), None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => to = ip(address),
            _ => {}
        }
    }
    // Remembered exceptions (path MTU, redirects) are no routes. Without a destination it is a default route, and
    // asked about anyway.
    if !is_looked_into(table) || route.header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let net = IpNet::new(to?, route.header.destination_prefix_length).ok()?;
    Some((net.trunc(), route.header.kind))
}

/// What connect() would do.
fn path(kernel: &mut Netlink, to: IpAddr) -> io::Result<Path> {
    // connect() refuses these before it asks the routes, or whatever they say.
    if to.is_multicast() {
        return Ok(Path::Fails(libc::ENETUNREACH as u32));
    }
    let mut question = RouteMessage::default();
    question.header.address_family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    question.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
    question.attributes.push(RouteAttribute::Destination(to.into()));
    match kernel.ask(&RouteNetlinkMessage::GetRoute(question)) {
        Ok(RouteNetlinkMessage::NewRoute(route)) => Ok(answer(&route)),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no route in the answer",
        )),
        Err(error) => match error.raw_os_error() {
            // What connect() would fail with; everything else is a failure of the question.
            Some(
                errno @ (libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::EACCES
                | libc::EINVAL
                | libc::ENETDOWN),
            ) => Ok(Path::Fails(errno as u32)),
            Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => Ok(Path::Fails(libc::ENETUNREACH as u32)),
            _ => Err(error),
        },
    }
}

pub(super) fn answer(route: &RouteMessage) -> Path {
    if matches!(route.header.kind, RouteType::Broadcast | RouteType::Multicast) {
        return Path::Fails(libc::ENETUNREACH as u32);
    }
    let source = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(address) => ip(address),
        _ => None,
    });
    match source {
        Some(source) => Path::From(source),
        // A route, and no address to send from.
        None => Path::Fails(libc::EADDRNOTAVAIL as u32),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
