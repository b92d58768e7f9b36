//! WHAT DOES THIS POD'S NETWORK LOOK LIKE? Its routes and its listening sockets, asked of the kernel by netlink.
//!
//! Changes nothing, and knows neither what is intercepted nor who wants to know. All answers are about the network
//! namespace of the calling thread.

use std::io;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod listening;
mod netlink;
mod prefixes;
mod routes;
mod sys;
#[cfg(test)]
mod tests;
mod watch;

pub use listening::Listeners;
pub use routes::{RouteTable, Routes};
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
