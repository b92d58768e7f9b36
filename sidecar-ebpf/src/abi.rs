//! Every type, name and size that crosses the kernel boundary.
//!
//! Deriving `Pod` makes padding, `bool` and `Option` fail to compile. A change here needs a new [`ABI_VERSION`]:
//! a proxy reuses the pinned maps of the one before it only when the versions agree (`tests/abi.rs` asks for it).

use bytemuck::{Pod, Zeroable};

use crate::addr::{Endpoint, Ip, Port};

pub const ABI_VERSION: u32 = 1;

/// Names of the maps, shared by the programs, the loader and the pins.
pub mod map {
    pub const ORIGIN: &str = "or_origin";
    pub const HANDSHAKE: &str = "or_handshake";
    pub const BYPASS: &str = "or_bypass";
    pub const LISTENERS: &str = "or_listeners";
    pub const SETTINGS: &str = "or_settings";
    pub const COUNTERS: &str = "or_counters";

    pub const ALL: [&str; 6] = [ORIGIN, HANDSHAKE, BYPASS, LISTENERS, SETTINGS, COUNTERS];
}

/// Names of the programs. The prefix keeps them apart from their section names, which bpf-linker would find
/// defined twice; 15 bytes is what the kernel keeps of a name.
pub mod program {
    pub const CONNECT4: &str = "or_connect4";
    pub const CONNECT6: &str = "or_connect6";
    pub const SOCKOPS: &str = "or_sockops";
    pub const GETPEERNAME4: &str = "or_getpeername4";
    pub const GETPEERNAME6: &str = "or_getpeername6";
    pub const GETSOCKOPT: &str = "or_getsockopt";
    pub const SK_LOOKUP: &str = "or_sk_lookup";

    pub const ALL: [&str; 7] = [
        CONNECT4,
        CONNECT6,
        SOCKOPS,
        GETPEERNAME4,
        GETPEERNAME6,
        GETSOCKOPT,
        SK_LOOKUP,
    ];
}

/// An entry lives from the SYN to the accept, microseconds as a rule, so this bounds a burst.
pub const HANDSHAKE_ENTRIES: usize = 4096;
/// The slot of the inbound listener.
pub const INBOUND_LISTENER: u32 = 0;
pub const LISTENER_SLOTS: usize = 1;
pub const MAX_ADDRESSES: usize = 16;
pub const MAX_OPEN_PORTS: usize = 16;

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
}

/// Where a redirected socket was meant to go.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Origin {
    pub ip: Ip,
    pub port: Port,
    pub role: Role,
    pub reserved0: u8,
    /// For the device that the socket was bound to, and what else must follow the connection.
    pub reserved: [u32; 3],
}

impl Origin {
    #[inline(always)]
    pub const fn new(to: Endpoint, role: Role) -> Self {
        Self {
            ip: to.ip,
            port: to.port,
            role,
            reserved0: 0,
            reserved: [0; 3],
        }
    }
}

/// A connection as both of its ends see it. The destination is part of it because redirected connections go to
/// many loopback addresses, and one source port may serve several of them at once.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Tuple {
    /// The network namespace: the same loopback tuple exists in every pod.
    pub netns: u64,
    pub source: Ip,
    pub destination: Ip,
    pub source_port: Port,
    pub destination_port: Port,
    pub reserved: u32,
}

/// The mark that the proxy puts on its own sockets before connect().
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Bypass {
    /// Not zero: connect is left alone.
    pub on: u32,
    /// For the client address that the socket will present.
    pub reserved: [u32; 7],
}

impl Bypass {
    pub const ON: Self = Self {
        on: 1,
        reserved: [0; 7],
    };
}

/// What the programs need to know about their pod. Unused slots are zero, and match nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Settings {
    /// [`ABI_VERSION`]; the programs refuse to work with another, above all with the zero of a fresh map.
    pub abi: u32,
    /// Not zero: nothing leaves or enters the pod in plaintext that the proxy has not seen.
    pub strict: u32,
    pub outbound_port: Port,
    pub inbound_port: Port,
    pub reserved: [u32; 5],
    /// Ports on which the proxy itself serves outsiders.
    pub open_ports: [Port; MAX_OPEN_PORTS],
    /// The pod's own addresses.
    pub addresses: [Ip; MAX_ADDRESSES],
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// What the programs count: an index into the counters map.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Counter {
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $name),)*];
            pub const COUNT: usize = Self::ALL.len();
        }
    };
}

counters! {
    Redirected = "redirected",
    /// connect() of something that is not TCP.
    PassedProtocol = "passed_protocol",
    /// The proxy's own sockets.
    PassedBypass = "passed_bypass",
    /// Loopback and the pod's own addresses.
    PassedLocal = "passed_local",
    /// Sockets that depend on an interface: bound to a device, or going to an IPv6 link-local address.
    PassedDevice = "passed_device",
    /// The same in strict mode.
    DeniedDevice = "denied_device",
    /// The kernel gave no socket storage (optmem limit), so the destination would have been lost.
    DeniedStorage = "denied_storage",
    /// A hook ran before its settings were written, or with those of another version.
    DeniedSettings = "denied_settings",
    /// The handshake map took no entry: the proxy will see a connection without an original destination.
    PublishFailed = "publish_failed",
    /// Original destinations handed over to the proxy's socket.
    Claimed = "claimed",
    /// Connections to the outbound port that nobody was redirected to.
    Unclaimed = "unclaimed",
    /// The accepted socket got no storage.
    ClaimFailed = "claim_failed",
    /// Connections from outside, given to the inbound listener.
    Steered = "steered",
    /// Connection attempts from inside the pod or to an open port, left alone.
    InboundPassed = "inbound_passed",
    /// Outsiders that dialled an intercept port.
    DroppedPort = "dropped_port",
    /// Plaintext from outside in strict mode.
    DroppedStrict = "dropped_strict",
    /// No inbound listener, or it could not take the connection: fail closed.
    DroppedListener = "dropped_listener",
    DroppedSettings = "dropped_settings",
}
