//! ROLE: the sidecar. `outbound.rs` and `inbound.rs` are the two walks.

use std::net::IpAddr;
use std::time::Duration;

use crate::{datapath, discovery, identity, intercept, observe, policy, route};

/// Everything that a proxy needs to know, validated.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub mode: policy::Mode,
    pub unknown: route::Unknown,
    pub intercept: intercept::Config,
    pub datapath: Option<datapath::Config>,
    pub discovery: discovery::Config,
    pub identity: identity::Config,
    pub observe: observe::Config,
    /// Shards of the data path, at least 1.
    pub workers: usize,
    /// How long open flows may go on after SIGTERM.
    pub drain: Duration,
}

/// Runs until SIGTERM or SIGINT. Blocks.
pub fn run(config: Config) -> anyhow::Result<()> {
    anyhow::bail!("the proxy of {} is not built yet", config.name)
}
