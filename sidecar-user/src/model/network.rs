//! What the pod's own network is made of, as `host/` finds it and `datapath/` tells it to the programs.

use std::net::{IpAddr, SocketAddr};

/// A TCP socket that listens in the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The kernel's number of the socket, never used twice.
    pub cookie: u64,
    pub at: SocketAddr,
    /// The inode of the cgroup that its maker was in when it was made, whose hooks it meets for good.
    pub cgroup: Option<u64>,
}

/// What the kernel would do with a connection to some prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// It would send from this address.
    From(IpAddr),
    /// connect() would fail at once, with this errno.
    Fails(u32),
}
