//! What lets the host of a pod ask whether its containers are well: its own addresses, and the ports of each pod. Whoever has a
//! socket in the host's network namespace may use them, so they are no more than what is declared.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use aya::Ebpf;
use sidecar_ebpf::abi::{ProbePort, map};
use sidecar_ebpf::addr::{Ip, Port};

use super::super::Error;
use super::super::ip::kernel_ip;
use super::super::map::Map;
use super::object::map_fd;

pub(super) struct Probes {
    host: Map<Ip, u32>,
    ports: Map<ProbePort, u32>,
}

impl Probes {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, Error> {
        Ok(Self {
            host: Map::new(map::HOST, Arc::new(map_fd(ebpf, map::HOST)?))?,
            ports: Map::new(map::PROBES, Arc::new(map_fd(ebpf, map::PROBES)?))?,
        })
    }

    /// These and no others.
    pub(super) fn set_host(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let wanted: Vec<Ip> = addresses.iter().map(|address| kernel_ip(*address)).collect();
        // First, so that there is room.
        self.host.retain(|ip| wanted.contains(ip))?;
        for ip in wanted {
            self.host.set(&ip, &1)?;
        }
        Ok(())
    }

    /// Of the pod in that network namespace these and no others.
    pub(super) fn set_ports(&self, netns: u64, ports: &BTreeSet<u16>) -> Result<(), Error> {
        let wanted = ports.iter().map(|port| ProbePort::new(netns, Port::new(*port)));
        let wanted: Vec<_> = wanted.collect();
        self.ports.retain(|at| at.netns != netns || wanted.contains(at))?;
        for at in wanted {
            self.ports.set(&at, &1)?;
        }
        Ok(())
    }
}
