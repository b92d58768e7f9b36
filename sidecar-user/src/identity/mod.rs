//! WHO AM I? The workload's key and certificate, where they come from and when they are renewed.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::SpiffeId;

#[derive(Clone, Debug)]
pub struct Config {
    pub id: SpiffeId,
    /// `https://host:port` of the Istio certificate service.
    pub authority: String,
    /// The name its certificate must carry; the host of `authority` when absent.
    pub server_name: Option<String>,
    /// PEM bundle that its certificate must chain to.
    pub roots: PathBuf,
    /// Bootstrap token file, read again on every call.
    pub token: PathBuf,
    /// The life asked for.
    pub ttl: Duration,
}
