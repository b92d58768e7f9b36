//! SINKS: metrics, the record of flows, the admin and status endpoints.
//!
//! Only roles call this. It decides nothing about traffic, opens no listener but the admin's unix socket, and
//! never makes the data path wait: what a reader is too slow for is dropped, and said so.
//!
//! One flow's way through: [`ShardObserver::open`] → [`OpenFlow::update`]… → [`OpenFlow::close`]. The walk owns the
//! [`OpenFlow`]; losing it records the flow as shut down by us, so each flow is recorded exactly once.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

mod admin;
mod exposition;
mod figures;
mod filter;
mod http;
mod labels;
mod meters;
mod observer;
mod process;
mod readiness;
mod report;
mod ring;
mod series;
mod shard;
mod socket;
mod stall;
mod status;
#[cfg(test)]
mod tests;
mod watch;
mod why;

pub use admin::{Admin, Explain, LogLevel, SetLevel, serve_admin};
pub use figures::Figure;
pub use meters::Meters;
pub use observer::{Limits, Observer, OpenFlow, ShardObserver};
pub use readiness::{Condition, Readiness};
pub use report::{FlowList, FlowReport, TlsReport, WatchEvent};
pub use socket::AdminSocket;
pub use status::serve_status;
pub use why::{EndpointReport, Protocol, Question, RuleReport, WhyReport};

#[derive(Clone, Debug)]
pub struct Config {
    /// Loopback address of the admin endpoint.
    pub admin: Option<SocketAddr>,
    /// The same endpoint on a unix socket.
    pub admin_socket: Option<PathBuf>,
    /// Port of `/metrics` and the probes, on every address.
    pub status_port: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on the admin socket {}: {reason}", path.display())]
    AdminSocket {
        path: PathBuf,
        reason: &'static str,
        #[source]
        source: Option<io::Error>,
    },
    #[error("cannot use the {endpoint} listener in the runtime")]
    Listener {
        endpoint: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the admin endpoint may listen on loopback only, not on {address}: it can stop this proxy")]
    NotLoopback { address: SocketAddr },
}

/// Locks even after a panic in another holder: every value here is a plain record that stays valid.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
