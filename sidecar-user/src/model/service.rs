//! A service: a name, virtual addresses and ports, and who stands behind them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::balancing::{Affinity, Balancing};
use super::identity::SpiffeId;

/// `namespace/hostname`, the registry's primary key of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    pub namespace: Arc<str>,
    pub hostname: Arc<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    /// Virtual addresses; empty for a headless service. Services whose ports differ may share one.
    pub vips: Vec<IpAddr>,
    /// Service port to target port. A target of 0 leaves the choice to each endpoint's own map.
    pub ports: BTreeMap<u16, u16>,
    /// Identities accepted beside the identity of the chosen workload.
    pub subject_alt_names: Vec<SpiffeId>,
    pub balancing: Balancing,
    /// `None`: each connection is balanced for itself.
    pub affinity: Option<Affinity>,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}
