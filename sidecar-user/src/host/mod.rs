//! WHAT DOES THIS POD'S NETWORK LOOK LIKE? Its routes, its listening sockets and its connections, asked of the kernel by
//! netlink; and what of a socket of this process, by TCP_INFO.
//!
//! Changes nothing, but that a connection can be ended, and knows neither what is intercepted nor who wants to know. All
//! answers by netlink are about the network namespace of the calling thread.

use std::io;

mod connections;
mod ends;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gateways;
mod listening;
mod netlink;
mod prefixes;
mod routes;
mod sys;
mod tcp_info;
#[cfg(test)]
mod tests;
mod watch;

pub use connections::{Connection, connections, destroy};
pub use ends::SocketsByEnds;
pub use gateways::gateways;
pub use listening::Listeners;
pub use routes::{RouteTable, Routes};
pub use tcp_info::tcp_facts;
pub use watch::{Change, Changes};

#[derive(Debug, thiserror::Error)]
#[error("the kernel cannot be asked for {what}: {source}")]
pub struct Error {
    what: &'static str,
    source: io::Error,
}

impl Error {
    fn asking(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { what, source }
    }
}
