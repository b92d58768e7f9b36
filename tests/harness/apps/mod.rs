//! Unmodified third-party programs, each started with a configuration of its own in the pod's directory. None of
//! them knows that it is intercepted.

pub mod clients;
pub mod script;
pub mod servers;

pub use clients::{curl, iperf3, psql, redis_cli};
pub use script::{Dialogue, Script};
pub use servers::{iperf3_server, nginx, postgres, redis, smtp};

/// The Debian packages these programs, and the harness itself, come from.
pub const PACKAGES: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("curl", "curl"),
    ("nginx", "nginx-light"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("iperf3", "iperf3"),
    ("psql", "postgresql-client"),
    ("/usr/bin/python3", "python3"),
    ("/usr/bin/aiosmtpd", "python3-aiosmtpd"),
    ("/usr/lib/postgresql", "postgresql"),
];
