//! HOW DOES A POD REACH THE CONTROL PROCESS? Through the agent of its node, which serves each sidecar of the node a stream and
//! is itself a client of the control process. Knows no pods, no resources and no certificates: it carries.
//!
//! ```text
//!   sidecar ── stream.rs ──▶ serve.rs, relay.rs ── control.rs, dial.rs ──▶ control
//! ```

use std::io;
use std::path::PathBuf;

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

#[derive(Clone, Debug)]
pub struct Config {
    /// `https://host:port`.
    pub url: String,
    /// PEM bundle that the certificate of the control process must chain to.
    pub roots: PathBuf,
    /// The agent's own token.
    pub token: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("control.url: `{value}` {reason}; write https://host:port")]
    Url { value: String, reason: &'static str },
    #[error("control.{field}: cannot read {}", path.display())]
    Read {
        field: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("control.{field}: {} {reason}", path.display())]
    Content {
        field: &'static str,
        path: PathBuf,
        reason: String,
    },
    #[error("control.roots: TLS cannot be set up with it")]
    Tls {
        #[source]
        source: tonic::transport::Error,
    },
}
