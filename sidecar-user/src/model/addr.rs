//! Addresses whose type says which role they play. Does not resolve names.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Where the application asked to go, before the kernel redirected it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OriginalDst(pub SocketAddr);

/// Who opened the connection, as far as it could be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddr(pub SocketAddr);

impl OriginalDst {
    /// The canonical form: a v4-mapped IPv6 address is its IPv4 address.
    pub fn new(addr: SocketAddr) -> Self {
        Self(canonical(addr))
    }
}

impl ClientAddr {
    pub fn new(addr: SocketAddr) -> Self {
        Self(canonical(addr))
    }
}

/// One spelling for each address: `::ffff:10.0.0.1` is `10.0.0.1`, flow label and scope are dropped.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Addresses that never leave the machine, or that name no host at all.
pub fn is_local_only(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()
}

impl fmt::Display for OriginalDst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
