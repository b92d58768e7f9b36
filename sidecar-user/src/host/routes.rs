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

/// Asks about the routes of one network namespace: that of the thread which asks first.
#[derive(Default)]
pub struct RouteTable {
    kernel: Option<Netlink>,
    prefixes: BTreeSet<IpNet>,
    /// How many of them were there at the last look at everything.
    began: usize,
    has6: bool,
    routes: Routes,
}

/// Prefixes that came one by one, of which most may have gone again: after so many all are looked at anew.
const CAME: usize = 1024;

impl RouteTable {
    /// Everything anew.
    pub fn look(&mut self) -> Result<&Routes, Error> {
        self.with_kernel(Self::look_at_all)
    }

    /// Only what these prefixes decide, and the longer ones within: where a route has gone they may be left without one of
    /// their own.
    pub fn look_at(&mut self, changed: &BTreeSet<IpNet>) -> Result<&Routes, Error> {
        self.with_kernel(|table, kernel| table.look_within(kernel, changed))
    }

    fn with_kernel(
        &mut self,
        ask: impl FnOnce(&mut Self, &mut Netlink) -> io::Result<()>,
    ) -> Result<&Routes, Error> {
        const WHAT: &str = "routes";
        // After a failure another socket is tried the next time.
        let mut kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => Netlink::open(SockProtocol::NetlinkRoute).map_err(Error::asking(WHAT))?,
        };
        ask(self, &mut kernel).map_err(Error::asking(WHAT))?;
        self.kernel = Some(kernel);
        Ok(&self.routes)
    }

    fn look_at_all(&mut self, kernel: &mut Netlink) -> io::Result<()> {
        let mut tables = Vec::new();
        let mut policy = false;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            policy |= has_policy(kernel, family)?;
            tables.extend(destinations(kernel, family)?);
        }
        self.has6 = tables.iter().any(|(net, kind)| is_address6(net, *kind));
        self.prefixes = ALWAYS.iter().filter_map(|p| p.parse().ok()).collect();
        self.prefixes.extend(tables.into_iter().map(|(net, _)| net));
        self.routes = Routes {
            paths: BTreeMap::new(),
            policy,
        };
        self.began = self.prefixes.len();
        for prefix in self.prefixes.clone() {
            self.ask(kernel, prefix)?;
        }
        Ok(())
    }

    fn look_within(&mut self, kernel: &mut Netlink, changed: &BTreeSet<IpNet>) -> io::Result<()> {
        // A prefix stays after its last route has gone: its answer is that of the one around it then.
        self.prefixes.extend(changed);
        if self.prefixes.len() > self.began + CAME {
            return self.look_at_all(kernel);
        }
        let mut affected = BTreeSet::new();
        for net in changed {
            let last = IpNet::from(net.broadcast());
            affected.extend(self.prefixes.range(*net..=last));
        }
        for prefix in affected {
            self.ask(kernel, prefix)?;
        }
        Ok(())
    }

    fn ask(&mut self, kernel: &mut Netlink, prefix: IpNet) -> io::Result<()> {
        let Some(ip) = sample(&prefix, &self.prefixes) else {
            self.routes.paths.remove(&prefix);
            return Ok(());
        };
        let mut path = path(kernel, ip)?;
        // The kernel looks for an address to send from first.
        if let Path::Fails(errno) = &mut path
            && ip.is_ipv6()
            && !ip.is_multicast()
            && !self.has6
        {
            *errno = libc::EADDRNOTAVAIL as u32;
        }
        self.routes.paths.insert(prefix, path);
        Ok(())
    }
}

#[cfg(test)]
impl RouteTable {
    /// Questions that the kernel was asked so far.
    pub(super) fn questions(&self) -> u32 {
        self.kernel.as_ref().map_or(0, Netlink::questions)
    }
}

/// The prefix whose route has changed, if it is one that is looked into. `None`: an address has come or gone with it.
pub(super) fn changed(route: &RouteMessage) -> Option<Option<IpNet>> {
    if matches!(
        route.header.kind,
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast
    ) {
        return None;
    }
    let everything = match route.header.address_family {
        AddressFamily::Inet => IpNet::from(ipnet::Ipv4Net::default()),
        AddressFamily::Inet6 => IpNet::from(ipnet::Ipv6Net::default()),
        _ => return Some(None),
    };
    match destination(route) {
        Some((net, _)) => Some(Some(net)),
        // A default route names no destination.
        None if route.header.destination_prefix_length == 0 => Some(Some(everything)),
        None => Some(None),
    }
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
pub(super) fn dump(
    kernel: &mut Netlink,
    request: RouteNetlinkMessage,
) -> io::Result<Vec<RouteNetlinkMessage>> {
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

pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
