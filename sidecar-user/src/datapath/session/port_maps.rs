//! The maps of ports on which somebody listens: those that the programs keep count of, and those that user space has found.

use std::net::SocketAddr;

use sidecar_ebpf::abi::{AppPorts, Inherited};

use super::mapped::Mapped;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct PortMaps {
    pub(super) counted: Mapped<AppPorts>,
    pub(super) inherited: Mapped<Inherited>,
}

impl PortMaps {
    /// Whether a socket that an attempt at this address would reach is counted by the programs.
    pub(super) fn is_counted(&self, at: SocketAddr) -> bool {
        let ports = self.counted.get(AppPorts::place(at.port()));
        ports.serves(at.port(), is_v4(at))
    }

    /// Whether user space has found such a socket that they do not count.
    pub(super) fn is_inherited(&self, at: SocketAddr) -> bool {
        let ports = self.inherited.get(Inherited::place(at.port()));
        ports.serves(at.port(), is_v4(at))
    }

    /// Whether there is either.
    pub(super) fn is_served(&self, at: SocketAddr) -> bool {
        self.is_counted(at) || self.is_inherited(at)
    }
}

fn is_v4(at: SocketAddr) -> bool {
    at.ip().to_canonical().is_ipv4()
}
