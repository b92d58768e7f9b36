//! What a proxy is told.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::own_pod::OwnPod;
use super::stop;
use super::takeover::Takeover;
use crate::existing::Existing;
use crate::grant::Door;
use crate::model::Own;
use crate::{datapath, discovery, identity, intercept, observe, policy, route};

/// Everything that a proxy needs to know, validated.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    /// The node that it runs on; empty where nobody says.
    pub node: String,
    pub addresses: Vec<IpAddr>,
    pub mode: policy::Mode,
    pub unknown: route::Unknown,
    pub intercept: intercept::Config,
    pub datapath: Option<datapath::Config>,
    /// Whoever installs that, in the place of this process.
    pub agent: Option<Door>,
    /// The pod of Kubernetes that this process is in, and attaches to by itself.
    pub own_pod: Option<OwnPod>,
    /// What becomes of the connections that were there before the first attachment.
    pub existing: Existing,
    /// What is intercepted, watched for changes; `None`: the default.
    pub interception_policy: Option<PathBuf>,
    pub takeover: Takeover,
    pub discovery: discovery::Source,
    pub identity: identity::Config,
    pub observe: observe::Config,
    /// The most memory for buffers, in bytes.
    pub buffer_memory: usize,
    /// Shards of the data path, at least 1.
    pub workers: usize,
    pub stop: stop::Config,
    /// How long a half-closed connection may stay silent.
    pub half_closed: Duration,
}

/// Who this proxy stands beside, as its configuration says.
pub(super) fn own(config: &Config) -> Own {
    Own {
        name: config.name.clone(),
        identity: config.identity.id.clone(),
        addresses: config.addresses.iter().map(IpAddr::to_canonical).collect(),
        node: config.node.clone(),
    }
}

/// On which the proxy itself serves whoever dials them.
pub(super) fn own_ports(config: &Config) -> Vec<u16> {
    let mut own = vec![config.intercept.hbone_port, config.observe.status_port];
    own.extend(config.observe.admin.map(|a| a.port()));
    own
}
