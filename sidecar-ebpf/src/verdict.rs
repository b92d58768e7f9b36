//! Pure decisions: what is redirected, what is left alone, what is refused.
//!
//! Calls no helper and reads no context; the hooks translate. The order of the rules is the rule.

use crate::abi::{
    ABI_VERSION, Action, Counter, Direction, Path, Policy, REDIRECT4_PORT, Range, SPREAD6_FIRST,
    SPREAD6_PORTS, Settings,
};
use crate::addr::{Endpoint, Ip, Port};

const TCP: u32 = 6;
/// Every network namespace numbers its loopback interface 1.
const LOOPBACK_IFINDEX: u32 = 1;

/// A socket that is about to connect.
#[derive(Clone, Copy, Debug)]
pub struct Connecting {
    pub protocol: u32,
    /// The proxy has marked the socket as its own: the port of the application that it is to reach, or 0.
    pub bypass: Option<Port>,
    /// The proxy has marked the socket as a probe.
    pub probe: Option<Probe>,
    pub to: Endpoint,
    /// The address that the socket is bound to, or zero.
    pub from: Ip,
    /// The interface that the socket is bound to, or 0.
    pub device: u32,
}

/// A connection of the proxy to itself, by way of the programs.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The destination that the proxy has dialled, which nobody else knows.
    pub nonce: Endpoint,
    /// Whose listener is to get it.
    pub direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    Pass(Counter),
    /// The proxy's own, to this application.
    Deliver(Endpoint),
    /// Remember the destination and go to the proxy instead.
    Redirect(Redirect),
    /// The application gets EPERM.
    Deny(Counter),
    /// The application gets this errno, as it would without the proxy.
    Fail(u32, Counter),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub target: Endpoint,
    /// connect() returns before the upstream has answered.
    pub optimistic: bool,
    /// Where the application would have sent from; zero when that is not known.
    pub source: Ip,
}

/// What the maps say about a destination. Asked only where it matters: the lookups cost more than the verdict.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub policy: Range,
    /// `None`: no route, or (as [`Settings::routes`] says) nothing is known about routes.
    pub path: Option<Path>,
}

const ENETUNREACH: u32 = 101;

#[inline(always)]
pub fn connect(socket: &Connecting, settings: &Settings, facts: impl FnOnce() -> Facts) -> Connect {
    if socket.protocol != TCP {
        return Connect::Pass(Counter::PassedProtocol);
    }
    if let Some(probe) = &socket.probe {
        return self::probe(socket, probe);
    }
    if let Some(application) = socket.bypass {
        if application.get() != 0 && socket.to.port.get() == 0 {
            return Connect::Deliver(Endpoint {
                ip: socket.to.ip,
                port: application,
            });
        }
        return Connect::Pass(Counter::PassedBypass);
    }
    if socket.to.ip.is_loopback() || is_own(settings, socket.to.ip) {
        return Connect::Pass(Counter::PassedLocal);
    }
    // The kernel refuses these itself; redirected, they would seem to reach somebody.
    if socket.to.ip.is_multicast() || socket.to.port.get() == 0 {
        return Connect::Pass(Counter::PassedSpecial);
    }
    if socket.from.is_redirected_source() {
        // From 127/8 the kernel refuses too. From ::1 it lets the SYN out, which comes back to nobody.
        return match settings.strict != 0 && !socket.from.is_v4() {
            true => Connect::Deny(Counter::DeniedSpecial),
            false => Connect::Pass(Counter::PassedSpecial),
        };
    }
    if settings.abi != ABI_VERSION {
        return Connect::Deny(Counter::DeniedSettings);
    }
    let Facts { policy, path } = facts();
    if policy.action == Action::LEAVE {
        return Connect::Pass(Counter::PassedPolicy);
    }
    // Means nothing without an interface, which the proxy does not know.
    if socket.to.ip.is_link_local6() {
        return device(settings);
    }
    let (source, errno) = match path {
        Some(path) => (path.source, path.errno),
        None => (Ip::from_v6([0; 4]), ENETUNREACH),
    };
    // A socket that is bound to a device is routed by that device, of which these routes say nothing.
    if settings.routes != 0 && socket.device == 0 && errno != 0 {
        return Connect::Fail(errno, Counter::FailedRoute);
    }
    Connect::Redirect(Redirect {
        target: spread(socket.to),
        optimistic: policy.optimistic != 0,
        source,
    })
}

/// Whether a connection passes from a network namespace that is no pod's, though its socket is of a pod's cgroup: a container
/// has made it. Nobody listens there for what is redirected.
#[inline(always)]
pub fn passes_anywhere(protocol: u32, to: Endpoint) -> bool {
    protocol != TCP || to.ip.is_loopback()
}

/// Redirected whatever policy and routes say: it is to find out whether the programs work, not what they are for. One whose
/// destination was changed on the way here would become a connection to somebody else.
#[inline(always)]
fn probe(socket: &Connecting, probe: &Probe) -> Connect {
    let Endpoint { ip, port } = probe.nonce;
    if !socket.to.ip.same(&ip) || socket.to.port.get() != port.get() {
        return Connect::Deny(Counter::DeniedProbe);
    }
    let outbound = spread(probe.nonce);
    let target = match probe.direction == Direction::INBOUND {
        // Where nobody listens, so that only the programs can find it a listener.
        true => Endpoint {
            port: Port::new(SPREAD6_FIRST + port.get() % SPREAD6_PORTS as u16),
            ..outbound
        },
        false => outbound,
    };
    Connect::Redirect(Redirect {
        target,
        optimistic: true,
        source: Ip::from_v6([0; 4]),
    })
}

/// A socket that depends on an interface and cannot be redirected. Any process may bind itself to a device, so
/// strict cannot let it pass.
#[inline(always)]
pub fn device(settings: &Settings) -> Connect {
    if settings.strict != 0 {
        Connect::Deny(Counter::DeniedDevice)
    } else {
        Connect::Pass(Counter::PassedDevice)
    }
}

/// The range that holds the port, among those of the longest prefix that matched.
#[inline(always)]
pub fn of_port(policy: Option<&Policy>, port: Port) -> Range {
    let everything = Range {
        first: 0,
        last: u16::MAX,
        action: Action::TAKE,
        optimistic: 0,
        rule: Range::DEFAULT,
    };
    let port = port.get();
    match policy {
        Some(policy) => *policy
            .ranges
            .iter()
            .find(|range| range.first <= port && port <= range.last && range.last != 0)
            .unwrap_or(&everything),
        None => everything,
    }
}

/// One address of 127.64.0.0/10, or one of many ports of ::1, by the original destination. One address and port would cap a
/// pod at one range of ephemeral ports for all of its connections. The choice depends on nothing but the destination,
/// so that a source port can be shared by different destinations, and by no two connections to the same one, as
/// without redirection.
#[inline(always)]
fn spread(to: Endpoint) -> Endpoint {
    let hash = mix(folded(to));
    if to.ip.is_v4() {
        Endpoint {
            ip: Ip::spread4(hash),
            port: Port::new(REDIRECT4_PORT),
        }
    } else {
        Endpoint {
            ip: Ip::LOOPBACK6,
            port: Port::new(SPREAD6_FIRST + (hash % SPREAD6_PORTS) as u16),
        }
    }
}

#[inline(always)]
fn folded(end: Endpoint) -> u32 {
    let words = end.ip.words();
    let network = words[0] ^ words[1].rotate_left(8) ^ words[2].rotate_left(16);
    network ^ words[3] ^ end.port.to_user_port().wrapping_mul(0x85eb_ca6b)
}

/// The finalizer of MurmurHash3.
#[inline(always)]
fn mix(mut hash: u32) -> u32 {
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// The shard of a connection, among those of one proxy. `sk_lookup` brings each of its packets there, and the filter of the shard's listener tells
/// that shard of it: both ask here.
#[inline(always)]
pub fn shard(from: Endpoint, to: Endpoint, shards: u32) -> u32 {
    let hash = mix(mix(folded(from)) ^ folded(to));
    match shards {
        0 => 0,
        shards => hash % shards,
    }
}

/// Whether IPv4 connections are redirected here: what arrives was redirected, or is refused.
#[inline(always)]
pub fn is_redirect4(at: Endpoint) -> bool {
    at.ip.is_spread4() && at.port.get() == REDIRECT4_PORT
}

/// Whether connections may arrive here whose listener the programs have to find, among those of programs that listen
/// here themselves: redirected ones by IPv6, and probes.
#[inline(always)]
pub fn is_spread(at: Endpoint) -> bool {
    at.port.get() >= SPREAD6_FIRST && (at.ip.is_spread4() || at.ip.same(&Ip::LOOPBACK6))
}

/// The client as the application's socket can name it. A socket that speaks only IPv4 has no way to name an IPv6 client:
/// it is shown nobody's address. The proxy's own, which is the pod's, would pass for a client of the same host.
#[inline(always)]
pub fn presented(client: Ip, only_v4: bool) -> (Ip, Counter) {
    if only_v4 && !client.is_v4() {
        (Ip::NOBODY4, Counter::PresentedNobody)
    } else {
        (client, Counter::Presented)
    }
}

/// What a socket is shown as its other end, where no destination or client is known: not the address that the proxy
/// falls back to when it has no other port, which programs would take for a client of their own host.
#[inline(always)]
pub fn stranger(peer: Ip) -> Option<Ip> {
    peer.is_spare_source().then_some(Ip::NOBODY4)
}

/// A connection attempt that looks for its listener.
#[derive(Clone, Copy, Debug)]
pub struct Arriving {
    pub protocol: u32,
    pub from: Ip,
    pub from_port: Port,
    pub to: Endpoint,
    /// The interface it came in by. Not `lo` for what the pod sends to its own address.
    pub ingress: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The kernel finds the listener as usual, and refuses where there is none.
    Pass(Counter),
    /// To an inbound listener.
    Steer,
    /// To an outbound listener, or the inbound one that a probe is meant for.
    Redirected,
    /// To an HBONE listener. Where there is none the kernel finds the one that is bound to the port.
    Tunnel,
    /// The client gets a reset.
    Drop(Counter),
}

/// What the maps say about an attempt from outside.
#[derive(Clone, Copy, Debug)]
pub struct InboundFacts {
    pub policy: Range,
    /// The application listens on the port, at an address of this family.
    pub listening: bool,
    /// The host itself asks whether a container is well, at a port that is declared for that.
    pub probe: bool,
}

#[inline(always)]
pub fn lookup(
    attempt: &Arriving,
    settings: &Settings,
    redirected: impl FnOnce() -> bool,
    facts: impl FnOnce() -> InboundFacts,
) -> Lookup {
    // Answers of a steered UDP socket would leave from the wrong port.
    if attempt.protocol != TCP {
        return Lookup::Pass(Counter::InboundPassed);
    }
    if attempt.to.ip.same(&Ip::LISTENERS) {
        return Lookup::Drop(Counter::DroppedPort);
    }
    if is_redirect4(attempt.to) {
        return match redirected() {
            true => Lookup::Redirected,
            false => Lookup::Drop(Counter::Unclaimed),
        };
    }
    if is_spread(attempt.to) && redirected() {
        return Lookup::Redirected;
    }
    if settings.abi == ABI_VERSION && attempt.to.port.get() == settings.hbone_port.get() {
        return Lookup::Tunnel;
    }
    // From this pod. Outsiders cannot claim these sources: the kernel drops them as martian.
    if attempt.ingress == LOOPBACK_IFINDEX
        || attempt.from.same(&attempt.to.ip)
        || attempt.from.is_loopback()
        || is_own(settings, attempt.from)
    {
        return Lookup::Pass(Counter::InboundPassed);
    }
    if settings.abi != ABI_VERSION {
        return Lookup::Drop(Counter::DroppedSettings);
    }
    if is_open(settings, attempt.to.port) {
        return Lookup::Pass(Counter::InboundPassed);
    }
    let InboundFacts {
        policy,
        listening,
        probe,
    } = facts();
    // Past the proxy, which accepts for an application that is dead. No policy of the pod's has a say.
    if probe {
        return Lookup::Pass(Counter::InboundPassedProbe);
    }
    if policy.action == Action::LEAVE {
        return Lookup::Pass(Counter::InboundPassedPolicy);
    }
    if settings.strict != 0 {
        return Lookup::Drop(Counter::DroppedStrict);
    }
    if settings.app_ports != 0 && !listening {
        // Refused as the kernel would. Passed, a listener that is not known yet would serve what the proxy has not seen.
        return Lookup::Drop(Counter::DroppedClosed);
    }
    Lookup::Steer
}

/// Whether this is the pod itself.
#[inline(always)]
pub fn is_local(settings: &Settings, ip: Ip) -> bool {
    ip.is_loopback() || is_own(settings, ip)
}

#[inline(always)]
fn is_own(settings: &Settings, ip: Ip) -> bool {
    settings.addresses.iter().any(|own| ip.same(own))
}

#[inline(always)]
fn is_open(settings: &Settings, port: Port) -> bool {
    settings.open_ports.iter().any(|open| open.get() == port.get())
}

#[cfg(test)]
mod tests;
