//! One rule of the policy, and those that are built in.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The application connects; a rule names destinations.
    Outbound,
    /// Somebody connects to the application; a rule names sources, and ports of the application.
    Inbound,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Destinations or sources. Those of IPv4 are never written as v4-mapped ones.
    pub nets: Vec<IpNet>,
    /// In ascending order, apart from one another.
    pub ports: Vec<Ports>,
    pub action: Action,
    pub source: Source,
}

/// `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Through the proxy. `optimistic`: connect() returns before the upstream has answered.
    Take { optimistic: bool },
    /// As if there were no proxy.
    Leave,
}

/// Where a rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The line of the policy file.
    Line(usize),
    BuiltIn(&'static str),
}

impl Ports {
    /// Port 0 is in it: nothing answers there, with and without a proxy.
    pub const ALL: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    pub fn holds(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// In the order and the form that a rule wants.
    pub fn merged(mut ports: Vec<Self>) -> Vec<Self> {
        ports.sort_by_key(|ports| ports.first);
        let mut merged: Vec<Self> = Vec::with_capacity(ports.len());
        for next in ports {
            match merged.last_mut() {
                Some(last) if next.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(next.last)
                }
                _ => merged.push(next),
            }
        }
        merged
    }
}

/// Link-local IPv4 is how a host reaches its cloud's metadata service, and nothing else that a mesh could know.
const LINK_LOCAL4: &str = "link-local, such as the cloud's metadata service";
/// The same service over IPv6, at AWS.
const METADATA6: &str = "the cloud's metadata service";
/// kernel.md 10.5: probes of the kubelet that come by this address have no identity, and need none.
const PROBES: &str = "probes of the kubelet";

pub(super) fn built_in(direction: Direction) -> Vec<Rule> {
    let leave = |net: &str, why| Rule {
        nets: vec![net.parse().expect("a constant CIDR")],
        ports: vec![Ports::ALL],
        action: Action::Leave,
        source: Source::BuiltIn(why),
    };
    match direction {
        Direction::Outbound => vec![
            leave("169.254.0.0/16", LINK_LOCAL4),
            leave("fd00:ec2::254/128", METADATA6),
        ],
        Direction::Inbound => vec![leave("169.254.7.127/32", PROBES)],
    }
}

/// An address as rules know it, and the CIDR that holds it alone: v4-mapped ones are IPv4.
pub(in super::super) fn host(ip: IpAddr) -> IpNet {
    IpNet::from(ip.to_canonical())
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}
