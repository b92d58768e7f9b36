//! HOW DOES A POD REACH THE CONTROL PROCESS? Through the agent of its node, which serves each sidecar of the node a stream and
//! is itself a client of the control process; or as such a client itself, where there is no agent. Knows no pods, no resources and no certificates: it carries.
//!
//! ```text
//!   sidecar ── stream.rs ──▶ serve.rs, relay.rs ── control.rs, dial.rs ──▶ control
//! ```

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

mod control;
mod dial;
mod files;
mod relay;
mod serve;
mod stream;
#[cfg(test)]
mod tests;

pub use control::Control;
pub use dial::{Addresses, ServiceName, service};
pub use relay::{Counts, Relay};
pub use serve::{Incoming, Local, Refused, Share, incoming, serve};
pub use stream::{Open, channel};

/// Done to each socket before it connects: a sidecar's own are not to be brought to the sidecar.
pub type Mark = Arc<dyn Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Sync>;

/// What a user calls the fields, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    pub url: &'static str,
    pub roots: &'static str,
    pub token: &'static str,
}

impl Fields {
    pub const AGENT: Self = Self {
        url: "control.url",
        roots: "control.roots",
        token: "control.token",
    };
    pub const SIDECAR: Self = Self {
        url: "identity.authority",
        roots: "identity.roots",
        token: "identity.token",
    };
}

#[derive(Clone, Debug)]
pub struct Config {
    pub fields: Fields,
    /// `https://host:port`.
    pub url: String,
    /// The name that its certificate must carry; the host of `url` when absent.
    pub server_name: Option<String>,
    /// PEM bundle that the certificate of the control process must chain to.
    pub roots: PathBuf,
    /// The caller's own token.
    pub token: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{field}: `{value}` {reason}; write https://host:port")]
    Url {
        field: &'static str,
        value: String,
        reason: &'static str,
    },
    #[error("{field}: cannot read {}", path.display())]
    Read {
        field: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{field}: {} {reason}", path.display())]
    Content {
        field: &'static str,
        path: PathBuf,
        reason: String,
    },
    #[error("{field}: TLS cannot be set up with it")]
    Tls {
        field: &'static str,
        #[source]
        source: tonic::transport::Error,
    },
}
