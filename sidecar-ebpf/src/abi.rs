//! Every type, name and size that crosses the kernel boundary.
//!
//! Deriving `Pod` makes padding, `bool` and `Option` fail to compile. What changes here changes maps, whose versions are
//! in [`schema`]: a proxy reuses the pinned maps of the one before it that have the same (`tests/schema.rs` asks for it).

use bytemuck::{Pod, Zeroable};

use crate::addr::{Endpoint, Ip, Port};

pub mod control;
mod counters;
mod facts;
mod owner;
mod pending;
mod ports;
mod probe;
pub mod schema;

pub use counters::{COUNTER_ROWS, COUNTER_SLOTS, Counter};
pub use facts::{LeftAlone, Watched};
pub use owner::Owner;
pub use pending::{Pending, Stage, StageChange, State};
pub use ports::{APP_PORT_SLOTS, AppPorts, INHERITED_SLOTS, Inherited};
pub use probe::{HOST_ADDRESSES, PROBE_PORTS, ProbePort};

pub const ABI_VERSION: u32 = 6;

/// Names of the maps, shared by the programs, the loader and the pins.
pub mod map {
    pub const ORIGIN: &str = "or_origin";
    pub const PENDING: &str = "or_pending";
    pub const PRESENTED: &str = "or_presented";
    pub const BYPASS: &str = "or_bypass";
    pub const WATCHED: &str = "or_watched";
    pub const LISTENERS: &str = "or_listeners";
    pub const APP_PORTS: &str = "or_app_ports";
    pub const APP_SOCKETS: &str = "or_app_sockets";
    pub const INHERITED: &str = "or_inherited";
    pub const POLICY: &str = "or_policy";
    pub const ROUTES: &str = "or_routes";
    pub const RINGS: &str = "or_rings";
    pub const SETTINGS: &str = "or_settings";
    pub const COUNTERS: &str = "or_counters";
    pub const SECRET: &str = "or_secret";
    pub const ANSWERS: &str = "or_answers";
    pub const HOST: &str = "or_host";
    pub const PROBES: &str = "or_probes";
    /// Which pods the programs serve.
    pub const PODS: &str = "or_pods";

    /// Maps of which each pod has its own, and those by which the programs find them by the pod's number.
    pub const BY_POD: [(&str, &str); 11] = [
        (PENDING, "or_pod_pending"),
        (PRESENTED, "or_pod_present"),
        (LISTENERS, "or_pod_listen"),
        (APP_PORTS, "or_pod_ports"),
        (APP_SOCKETS, "or_pod_sockets"),
        (INHERITED, "or_pod_found"),
        (POLICY, "or_pod_policy"),
        (ROUTES, "or_pod_routes"),
        (SETTINGS, "or_pod_settings"),
        (COUNTERS, "or_pod_counters"),
        (SECRET, "or_pod_secret"),
    ];

    /// Those that are kept from one proxy to the next.
    pub const ALL: [&str; 18] = [
        ORIGIN,
        PENDING,
        PRESENTED,
        BYPASS,
        WATCHED,
        LISTENERS,
        APP_PORTS,
        APP_SOCKETS,
        INHERITED,
        POLICY,
        ROUTES,
        RINGS,
        SETTINGS,
        COUNTERS,
        SECRET,
        ANSWERS,
        HOST,
        PROBES,
    ];
}

/// Names of the programs. The prefix keeps them apart from their section names, which bpf-linker would find
/// defined twice; 15 bytes is what the kernel keeps of a name.
pub mod program {
    pub const CONNECT4: &str = "or_connect4";
    pub const CONNECT6: &str = "or_connect6";
    pub const SOCKOPS: &str = "or_sockops";
    pub const GETPEERNAME4: &str = "or_getpeername4";
    pub const GETPEERNAME6: &str = "or_getpeername6";
    pub const GETSOCKNAME4: &str = "or_getsockname4";
    pub const GETSOCKNAME6: &str = "or_getsockname6";
    pub const GETSOCKOPT: &str = "or_getsockopt";
    pub const SK_LOOKUP: &str = "or_sk_lookup";
    /// Attached to the outbound listeners themselves, not pinned: it dies with them.
    pub const HOLD: &str = "or_hold";
    /// Attached to nothing: the proxy runs it.
    pub const APPROVE: &str = "or_approve";
    /// Attached only where a proxy may not call bpf(2): every other setsockopt() of the pod passes it.
    pub const SETSOCKOPT: &str = "or_setsockopt";

    pub const ALL: [&str; 12] = [
        CONNECT4,
        CONNECT6,
        SOCKOPS,
        GETPEERNAME4,
        GETPEERNAME6,
        GETSOCKNAME4,
        GETSOCKNAME6,
        GETSOCKOPT,
        SK_LOOKUP,
        HOLD,
        APPROVE,
        SETSOCKOPT,
    ];
}

// The kernel allocates a hash map's buckets when the map is made, 16 bytes for each of its entries: these sizes are memory
// of every pod, also of one that connects to nobody. A test adds them up.

/// Connections on their way to the proxy, from the SYN to the connection's establishment: microseconds as a rule, minutes
/// where a SYN waits for its upstream. None is evicted, because its entry decides where it goes: at the bound connect() fails.
pub const PENDING_ENTRIES: usize = 8192;
/// Of these, the SYNs that a proxy lets wait; it refuses others. The rest is room for a burst: what the queue of a listener
/// holds, 4,096.
pub const HELD_MOST: usize = PENDING_ENTRIES / 2;
/// Connections on their way from the proxy to the application, from the SYN to the accepted socket. Without an entry a
/// connection fails, so the proxy keeps fewer under way.
pub const PRESENTED_ENTRIES: usize = 4096;
/// One for each shard and kind of listener.
pub const LISTENER_SLOTS: usize = 3 * SHARD_SLOTS;
pub const MAX_ADDRESSES: usize = 16;
pub const MAX_OPEN_PORTS: usize = 16;
/// More network devices than this and an application's binding to the others cannot be shown to it.
pub const MAX_DEVICES: usize = 8;
/// The port of 127.64.0.0/10 to which IPv4 connections are redirected. Nobody listens there: `sk_lookup` brings them to the
/// proxy. Accepted sockets occupy it, so it is one on which no application listens.
pub const REDIRECT4_PORT: u16 = 1;
/// The first of the ports of ::1 on which redirected IPv6 connections are spread; IPv6 has no other loopback address to
/// spread over. Accepted sockets occupy them, so they lie above those that the kernel chooses from, where few programs
/// listen.
pub const SPREAD6_FIRST: u16 = 61440;
/// How many: a power of two, for the hash. The last one is 65535.
pub const SPREAD6_PORTS: u32 = 4096;
/// Shards of one proxy, each with its own listeners and ring.
pub const MAX_SHARDS: usize = 64;
/// Proxies that may have listeners at the same time: the one that serves the pod, and those before it that still wait for
/// connections on their way. Each has [`MAX_SHARDS`] slots of its own, and the settings say whose count.
pub const GENERATIONS: usize = 4;
/// Shards of all of them.
pub const SHARD_SLOTS: usize = GENERATIONS * MAX_SHARDS;
/// Pods of a node that one load of the programs serves.
pub const PODS_MOST: usize = 512;

/// The place of a shard's ring in `or_rings`. The shard is counted through all generations of its pod.
#[inline(always)]
pub const fn ring_slot(pod: u32, shard: u32) -> u32 {
    pod * SHARD_SLOTS as u32 + shard
}

/// Bytes of one shard's ring: room for some 400 held connections that it has not looked at yet.
pub const RING_BYTES: usize = 64 * 1024;
/// Listening sockets that the programs keep count of; those beyond are user space's to find.
pub const APP_SOCKET_ENTRIES: usize = 4096;
/// Prefixes of the policy, of two generations while it changes.
pub const POLICY_ENTRIES: usize = 16384;
pub const ROUTE_ENTRIES: usize = 65536;
/// Port ranges of one prefix.
pub const MAX_RANGES: usize = 16;

/// What a listener of a shard is for.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Plaintext from outside.
    Inbound,
    /// Redirected connections.
    Outbound,
    /// Mesh peers.
    Hbone,
}

impl Listener {
    /// Its place in `or_listeners`. `shard` is counted through all generations.
    #[inline(always)]
    pub const fn slot(self, shard: u32) -> u32 {
        self as u32 * SHARD_SLOTS as u32 + shard
    }
}

/// Which end of a redirected connection a socket is.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Role(u8);

impl Role {
    /// The socket was used again for a connection that is not redirected.
    pub const NONE: Self = Self(0);
    /// The application's end: getpeername shows it the original destination.
    pub const CLIENT: Self = Self(1);
    /// The proxy's end: SO_ORIGINAL_DST answers on it.
    pub const ACCEPTED: Self = Self(2);
    /// The serving application's end of a connection from the proxy: getpeername shows it the true client.
    pub const PRESENTED: Self = Self(3);
    /// The accepted end of a connection from the proxy to itself, by which it proves that the programs see its sockets:
    /// getpeername and SO_ORIGINAL_DST both answer on it.
    pub const PROBED: Self = Self(4);
}

/// Where a redirected socket was meant to go, or who really called.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Origin {
    pub ip: Ip,
    /// The address that the application would have sent from, for getsockname; zero when it is not known.
    pub source: Ip,
    pub port: Port,
    pub role: Role,
    /// Of [`Origin::OPTIMISTIC`] and [`Origin::REUSE`].
    pub flags: u8,
    /// The interface that the application has bound its socket to, or 0.
    pub device: u32,
}

impl Origin {
    /// connect() does not wait for the upstream.
    pub const OPTIMISTIC: u8 = 1;
    /// The socket lets its address be shared until it is connected, though the application did not ask for it: the
    /// proxy's own socket may need the same address and port, to be seen as the application's.
    pub const REUSE: u8 = 2;
    /// A connection of the proxy to itself, which proves that connections get here. No counter counts it.
    pub const PROBE: u8 = 4;
    /// A probe that goes to the inbound listener.
    pub const PROBE_INBOUND: u8 = 8;

    #[inline(always)]
    pub const fn new(to: Endpoint, role: Role) -> Self {
        Self {
            ip: to.ip,
            source: Ip::from_v6([0; 4]),
            port: to.port,
            role,
            flags: 0,
            device: 0,
        }
    }
}

/// A connection as both of its ends see it. The destination is part of it because redirected connections go to
/// many loopback addresses, and one source port may serve several of them at once.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Tuple {
    /// The network namespace: the same loopback tuple exists in every pod.
    pub netns: u64,
    pub source: Ip,
    pub destination: Ip,
    pub source_port: Port,
    pub destination_port: Port,
    /// Zero.
    pub reserved: u32,
}

/// What happened to a connection that is not accepted yet. A record of a shard's ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    pub tuple: Tuple,
    pub origin: Origin,
    /// Of the SYN, in host order.
    pub sequence: u32,
    pub kind: u8,
    /// The first byte of the IPv4 header's service field, or IPv6's traffic class.
    pub traffic_class: u8,
    /// How much of `tcp` is filled.
    pub tcp_len: u8,
    pub reserved: u8,
    /// The SYN's TCP header with its options, 60 bytes at most, as it came.
    pub tcp: [u8; 64],
}

impl Event {
    /// A SYN has come and is held.
    pub const HELD: u8 = 1;
    // 2 was a SYN that could not be held, in earlier versions.
    /// The application's socket has left SYN_SENT before the proxy accepted it: it gave up, or was refused.
    pub const GONE: u8 = 3;
    /// A SYN of a connection that nobody redirected, or that has ended meanwhile. It is to be refused.
    pub const STRAY: u8 = 4;
    /// A SYN has come again that was told of and is held still, in case it was lost there.
    pub const AGAIN: u8 = 5;
}

/// The mark that the proxy puts on its own sockets before connect().
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Bypass {
    /// Not zero: connect is left alone.
    pub on: u32,
    /// The client that the accepting application is to see; port 0 for none.
    pub client_port: Port,
    /// Where that application listens. connect() is given port 0, and the connect hook puts this one in its place: from
    /// a socket that the hooks do not see no SYN gets to an application, which would take the proxy for its client.
    pub application_port: Port,
    pub client_ip: Ip,
    /// What the accepted socket becomes.
    pub accepted: Role,
    /// Not zero: a probe. The socket is redirected, if it dials exactly the client's address above; this says to which
    /// listener.
    pub probe: Direction,
    pub reserved: [u8; 6],
}

impl Bypass {
    pub const ON: Self = Self {
        on: 1,
        client_port: Port::new(0),
        application_port: Port::new(0),
        client_ip: Ip::from_v6([0; 4]),
        accepted: Role::NONE,
        probe: Direction::NONE,
        reserved: [0; 6],
    };

    /// For a socket that dials whoever listens on `application_port` on behalf of `client`. `accepted` is
    /// [`Role::PRESENTED`] or [`Role::PROBED`].
    pub const fn presenting(client: Endpoint, application_port: Port, accepted: Role) -> Self {
        Self {
            client_port: client.port,
            application_port,
            client_ip: client.ip,
            accepted,
            ..Self::ON
        }
    }

    /// For a socket that dials `nonce` and is to arrive at the proxy's own listener of that direction.
    pub const fn probing(nonce: Endpoint, direction: Direction) -> Self {
        Self {
            client_port: nonce.port,
            client_ip: nonce.ip,
            probe: direction,
            ..Self::ON
        }
    }
}

/// A listening socket that is counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct AppSocket {
    pub ip: Ip,
    pub port: Port,
    pub reserved: u16,
}

/// The key of the policy: a prefix of it matches. Most significant byte first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct PolicyKey {
    /// [`Settings::policy_generation`]: a new policy is written beside the old one, and takes effect at once.
    pub generation: u8,
    pub direction: Direction,
    pub reserved: u16,
    /// Outbound the destination, inbound the client.
    pub ip: Ip,
}

impl PolicyKey {
    /// Bits of the key before the address.
    pub const HEAD: u32 = 32;
    /// Bits of the whole key.
    pub const BITS: u32 = Self::HEAD + 128;
}

#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Direction(u8);

impl Direction {
    pub const NONE: Self = Self(0);
    pub const OUTBOUND: Self = Self(1);
    pub const INBOUND: Self = Self(2);
}

/// What happens to the ports of a prefix: the first range that holds the port counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Policy {
    pub ranges: [Range; MAX_RANGES],
}

/// `first..=last`, in host order. The zeroed one holds no port, as there is no port 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Range {
    pub first: u16,
    pub last: u16,
    pub action: Action,
    /// Not zero: connect() does not wait for the upstream.
    pub optimistic: u8,
    /// Which rule of the configuration this comes from, for the explanation; [`Range::DEFAULT`] for none.
    pub rule: u16,
}

impl Range {
    pub const DEFAULT: u16 = u16::MAX;
}

#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Action(u8);

impl Action {
    /// Through the proxy.
    pub const TAKE: Self = Self(0);
    /// As if there were no proxy.
    pub const LEAVE: Self = Self(1);
}

/// How this host would reach a prefix, so that connect() can answer as it would without the proxy.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Path {
    /// The address that the kernel would send from; zero when it is not known.
    pub source: Ip,
    /// What connect() fails with at once, or 0.
    pub errno: u32,
}

/// A network device of the pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Device {
    pub index: u32,
    /// Ends with a zero, as the kernel's do.
    pub name: [u8; 16],
}

/// What the programs need to know about their pod. Unused slots are zero, and match nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Settings {
    /// [`ABI_VERSION`]; the programs refuse to work with another, above all with the zero of a fresh map.
    pub abi: u32,
    /// Not zero: no TCP connection leaves or enters the pod in plaintext that the proxy has not seen, but those that the
    /// policy leaves alone. UDP and other protocols pass unseen.
    pub strict: u32,
    /// The cookie of the pod's network namespace, which the listener's filter has no way to ask for.
    pub netns: u64,
    /// Where mesh peers dial.
    pub hbone_port: Port,
    /// Not zero: SYNs are held until their upstream has answered.
    pub hold: u16,
    /// The first shard of the proxy that new connections go to. In one word with the next, so that both change at once.
    pub first_shard: u16,
    /// Among which connections are shared out, at most [`MAX_SHARDS`].
    pub shards: u16,
    /// Another number for each proxy that takes the pod over.
    pub epoch: u32,
    /// Which entries of `or_policy` count. Zero: none, and everything is taken.
    pub policy_generation: u32,
    /// Not zero: `or_routes` is complete.
    pub routes: u32,
    /// Not zero: `or_app_ports` is complete.
    pub app_ports: u32,
    /// Ports on which the proxy itself serves outsiders.
    pub open_ports: [Port; MAX_OPEN_PORTS],
    /// The pod's own addresses.
    pub addresses: [Ip; MAX_ADDRESSES],
    pub devices: [Device; MAX_DEVICES],
}
