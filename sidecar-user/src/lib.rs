//! Outrigger's user-space half: rooms with walls. `ARCHITECTURE.md` has the map; `proxy/outbound.rs` and
//! `proxy/inbound.rs` are the two walks to read first.

pub mod cli;
pub mod config;
pub mod control;
pub mod datapath;
pub mod discovery;
pub mod identity;
pub mod intercept;
pub mod issuer;
pub mod lifecycle;
pub mod model;
pub mod observe;
pub mod plugin;
pub mod policy;
pub mod proxy;
pub mod relay;
pub mod route;
pub mod transport;
