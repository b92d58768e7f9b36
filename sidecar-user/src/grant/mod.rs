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
//!   settle                              ──▶      connections from before are left or ended
//!                                       ◀──      settled: how many
//! ```
//!
//! The conversation is over then, and what was given stays: neither the agent nor this file is needed any more.
//!
//! Where a sidecar serves the pod, the agent brings the two together instead: by a socket that it has given to the first with its
//! session, and that nobody but the agent can reach. What the two say to each other is `proxy/takeover.rs`.
//!
//! ```text
//!   ask                                 ──▶      a sidecar serves
//!                                       ◀──      serving: a conversation with that one, who hands over the lease
//!   succeed: the lease, and ask         ──▶      whether it is the lease, and that of the one that serves
//!                                       ◀──      granted, and so on as above
//!   taken                               ──▶      the one before has given the pod up
//! ```
//!
//! Where the second ends before it has said `taken`, the agent puts back what it has changed, and then closes its own end of that
//! conversation: the first goes on when it sees that nobody is there any more.
//!
//! A sidecar also comes through the same door for a stream to the control plane, which is a conversation of one word:
//!
//! ```text
//!   control                             ──▶      who is it, by its cgroup
//!                                       ◀──      done: one end of a stream, at which the agent serves gRPC
//! ```

mod door;
mod words;

pub use door::Door;
pub use words::{Answer, Ask, Given, Request, STEERED, Wanted, raw_socket};

/// What the words mean. Another number is refused.
pub const PROTOCOL: u32 = 2;

/// Where a pod's agent listens, in the abstract namespace of the pod's network namespace.
pub const DOOR: &str = "outrigger/agent";

/// From the agent to a sidecar whose successor has ended before it was done: the pod cannot be given back to it.
pub const LOST: &[u8] = br#"{"say":"lost"}"#;

/// Names of what is given beside a session's own descriptors.
pub const LEASE: &str = "lease";
pub const SLOTS: &str = "slots";
/// Where the agent brings a proxy that wants to take the pod over: a socket that listens.
pub const HANDOVER: &str = "handover";
/// A file of 16 bytes, by which the session is written to.
pub const SECRET: &str = "secret";
/// A Unix socket that listens, where the sidecar answers the agent's questions about flows; not there where the agent could make
/// none.
pub const QUESTIONS: &str = "questions";
