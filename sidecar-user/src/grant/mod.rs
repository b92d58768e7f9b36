//! THE GRANT: what a sidecar and the agent of its node say to each other. The sidecar asks at a door in its own network
//! namespace, and is given a session: descriptors, and the right to nothing else. Knows the words; who is asked and what is
//! given `agent/` decides, and what becomes of it `proxy/`.
//!
//! ```text
//!   sidecar                                      agent
//!   ask: ports, shards, addresses       ──▶      who is it, by its cgroup
//!                                       ◀──      granted: descriptors by name, its part of the slots
//!   steer: the listeners of a shard     ──▶      they stand in the slots
//!                                       ◀──      done
//!   activate                            ──▶      connections are brought to them
//!                                       ◀──      done
//! ```
//!
//! The conversation is over then, and what was given stays: neither the agent nor this file is needed any more.

mod door;
mod words;

pub use door::Door;
pub use words::{Answer, Ask, Given, Request, STEERED, Wanted, raw_socket};

/// What the words mean. Another number is refused.
pub const PROTOCOL: u32 = 1;

/// Where a pod's agent listens, in the abstract namespace of the pod's network namespace.
pub const DOOR: &str = "outrigger/agent";

/// Names of what is given beside a session's own descriptors.
pub const LEASE: &str = "lease";
pub const SLOTS: &str = "slots";
/// A file of 16 bytes, by which the session is written to.
pub const SECRET: &str = "secret";
/// A Unix socket that listens, where the sidecar answers the agent's questions about flows; not there where the agent could make
/// none.
pub const QUESTIONS: &str = "questions";
