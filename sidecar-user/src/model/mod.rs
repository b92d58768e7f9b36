//! NOUNS: what the rest of Outrigger talks about.
//!
//! Values only. Nothing here does input or output, knows a wire format, or reads a clock.

pub mod addr;
pub mod authorization;
pub mod decision;
pub mod flow;
pub mod identity;
pub mod leg;
pub mod network;
mod policies;
pub mod service;
pub mod snapshot;
pub mod syn;
pub mod workload;

pub use addr::{ClientAddr, OriginalDst};
pub use decision::{Decided, Decision, Decisions, Failure, Routed};
pub use flow::{Cause, Direction, Flow, Outcome, Party, TlsFacts, Transport};
pub use identity::SpiffeId;
pub use service::{Service, ServiceName};
pub use snapshot::{Endpoint, Snapshot};
pub use syn::{HeldEvent, HeldSyn, Pair};
pub use workload::{Own, TunnelProtocol, Workload};
