//! The two walks: one connection from its arrival to its end. A shard starts them, and `shard/context.rs` is what they may
//! use of it.
//!
//! ```text
//!   outbound.rs ─▶ dial.rs ─▶ search.rs                    an application's connection to its upstream
//!   tunnel.rs ─▶ inbound.rs ─▶ deliver.rs                  a peer's, or a stranger's, to the application
//!        both end in relay.rs
//! ```

mod deliver;
mod dial;
pub(super) mod inbound;
pub(super) mod outbound;
mod patience;
pub(super) mod relay;
mod search;
pub(super) mod tunnel;
