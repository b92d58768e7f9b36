//! NOUNS: what the rest of Outrigger talks about.
//!
//! Values only. Nothing here does input or output, knows a wire format, or reads a clock.

pub mod addr;
pub mod authorization;
pub mod balancing;
pub mod bottleneck;
mod caller;
pub mod decision;
mod endpoint;
pub mod flow;
pub mod identity;
mod known;
pub mod leg;
pub mod network;
pub mod outcome;
mod policies;
pub mod service;
pub mod snapshot;
pub mod syn;
pub mod tcp;
pub mod workload;

pub use addr::{ClientAddr, OriginalDst};
pub use balancing::{Affinity, BalanceMode, Balancing, HealthPolicy};
pub use bottleneck::Bottleneck;
pub use caller::{AGENT_TOKEN, Caller, CallerKind, LocalPod};
pub use decision::{Decided, Decision, Decisions, Failure, Routed};
pub use flow::{Direction, Flow, TlsFacts};
pub use identity::SpiffeId;
pub use outcome::{Cause, Outcome, Party, Transport};
pub use service::{Service, ServiceName};
pub use snapshot::{Endpoint, Snapshot};
pub use syn::{HeldEvent, HeldSyn, Pair};
pub use tcp::{LegFacts, LegSocket, Legs, Queue, TcpFacts};
pub use workload::{Locality, Location, Own, TunnelProtocol, Workload};
