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
}

/// How a workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelProtocol {
    /// It is not in the mesh: plain TCP.
    None,
    /// It is in the mesh: HTTP/2 CONNECT over mutual TLS, port 15008.
    Hbone,
}
