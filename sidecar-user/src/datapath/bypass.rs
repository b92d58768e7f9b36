//! How the proxy's own sockets stay out of its own way: a flag in the socket's storage, set before connect().
//!
//! Unforgeable (it takes the map's descriptor) and tied to nothing but the socket: no uid, no mark. The same flag names
//! the client that an accepting application of this pod is to see; whether to believe that client is not asked here.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use sidecar_ebpf::abi;
use sidecar_ebpf::addr::{Endpoint, Port};

use super::settings::kernel_ip;
use super::sys;

#[derive(Clone, Debug)]
pub struct Bypass {
    map: Arc<OwnedFd>,
}

impl Bypass {
    pub(super) fn new(map: OwnedFd) -> Self {
        Self { map: Arc::new(map) }
    }

    /// Marks one of the proxy's own sockets. To be called before connect(), which is when it is looked at.
    pub fn mark(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        sys::storage_set(self.map.as_fd(), socket, &abi::Bypass::ON)
    }

    /// As [`Self::mark`], for a socket that dials an application of this pod: accept() and getpeername() show it
    /// `client`, and not the proxy.
    pub fn present(&self, socket: BorrowedFd<'_>, client: SocketAddr) -> io::Result<()> {
        let client = Endpoint {
            ip: kernel_ip(client.ip()),
            port: Port::new(client.port()),
        };
        sys::storage_set(self.map.as_fd(), socket, &abi::Bypass::presenting(client))
    }
}
