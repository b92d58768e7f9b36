//! How the proxy's own sockets stay out of its own way: a flag in the socket's storage, set before connect().
//!
//! Unforgeable (it takes the map's descriptor) and tied to nothing but the socket: no uid, no mark.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use sidecar_ebpf::abi;

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
}
