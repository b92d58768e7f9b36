//! Whom to ask: the flags that name an admin endpoint, of a proxy or of a node's agent.

use std::path::PathBuf;

use clap::Args;

use super::client::Target;
use super::error::Error;

#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// Admin endpoint of the proxy, e.g. 127.0.0.1:15000
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "unix")]
    address: Option<String>,
    /// Admin socket of the proxy, e.g. /run/outrigger/admin.sock, or of the node's agent, which knows all its pods
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
}

impl TargetArgs {
    pub(super) fn target(&self) -> Result<Target, Error> {
        match (&self.address, &self.unix) {
            (Some(address), _) => Ok(Target::Tcp(address.clone())),
            (_, Some(path)) => Ok(Target::Unix(path.clone())),
            _ => Err(Error::NoTarget),
        }
    }
}
