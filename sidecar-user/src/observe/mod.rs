//! SINKS: metrics, the flow log, the admin and status endpoints. Nobody but roles calls this.

use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub struct Config {
    /// Loopback address of the admin endpoint.
    pub admin: Option<SocketAddr>,
    /// The same endpoint on a unix socket.
    pub admin_socket: Option<PathBuf>,
    /// Port of `/metrics` and the probes, on every address.
    pub status_port: u16,
}
