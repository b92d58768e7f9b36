//! Outrigger's user-space half: rooms with walls. `ARCHITECTURE.md` has the map; `proxy/walk/outbound.rs` and
//! `proxy/walk/inbound.rs` are the two walks to read first.

pub mod admission;
pub mod agent;
pub mod budget;
pub mod cli;
pub mod config;
pub mod control;
pub mod credentials;
pub mod datapath;
pub mod discovery;
pub mod document;
pub mod existing;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod grant;
pub mod grpc;
pub mod host;
pub mod identity;
pub mod inject;
pub mod intercept;
pub mod issuer;
pub mod kubernetes;
pub mod lifecycle;
pub mod model;
pub mod observe;
pub mod pki;
pub mod plugin;
pub mod pods;
pub mod policy;
pub mod proxy;
pub mod relay;
pub mod route;
#[cfg(test)]
pub(crate) mod testing;
pub mod transport;
pub mod uplink;
pub mod webhook;
pub mod xds;

/// An error with everything that led to it, each thing once.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries print their source themselves.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
