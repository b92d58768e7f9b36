//! The two walks: one connection from its arrival to its end. `outbound.rs` and `inbound.rs` are read first; a shard starts
//! them. What a walk may use of its shard is `shard/context.rs`.

pub(super) mod inbound;
pub(super) mod outbound;
mod patience;
pub(super) mod relay;
