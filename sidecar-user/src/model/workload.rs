//! A workload: one pod (or process) with its addresses and its identity.

use std::net::IpAddr;

use super::identity::SpiffeId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Unique in the registry, e.g. `cluster1//Pod/ns/name`.
    pub uid: String,
    pub name: String,
    pub namespace: String,
    pub identity: SpiffeId,
    pub addresses: Vec<IpAddr>,
    pub protocol: TunnelProtocol,
    pub healthy: bool,
    /// Load-balancing weight; 1 unless the registry says otherwise.
    pub capacity: u32,
    pub locality: Locality,
    /// The node that it runs on; empty where nobody says.
    pub node: String,
}

/// Where a workload runs. What nobody says is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    pub region: String,
    pub zone: String,
    pub subzone: String,
}

/// What makes one workload nearer than another.
#[derive(Clone, Copy, Debug)]
pub struct Location<'w> {
    pub locality: &'w Locality,
    pub node: &'w str,
}

/// What a proxy knows of the workload beside it, without the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    pub name: String,
    pub identity: SpiffeId,
    /// In their canonical form.
    pub addresses: Vec<IpAddr>,
    /// Empty where nobody has told it.
    pub node: String,
}

impl Locality {
    pub const fn unknown() -> Self {
        Self {
            region: String::new(),
            zone: String::new(),
            subzone: String::new(),
        }
    }
}

impl Workload {
    /// Its name within the namespace; that of the uid, `…/namespace/name`, where it has no other.
    pub fn pod(&self) -> &str {
        if !self.name.is_empty() {
            return &self.name;
        }
        match self.uid.rsplit_once('/') {
            Some((rest, name)) if rest.rsplit('/').next() == Some(&*self.namespace) => name,
            _ => "",
        }
    }

    pub fn location(&self) -> Location<'_> {
        Location {
            locality: &self.locality,
            node: &self.node,
        }
    }

    pub fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses.iter().any(|ip| ip.to_canonical() == address)
    }
}

/// How a workload is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TunnelProtocol {
    /// It is not in the mesh: plain TCP.
    #[default]
    None,
    /// It is in the mesh: HTTP/2 CONNECT over mutual TLS, port 15008.
    Hbone,
}
