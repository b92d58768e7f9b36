//! WHAT DO DISCOVERY SERVERS AND CLIENTS SAY? Istio workload discovery: its messages, and the state of its two ends.

pub mod message;
mod resource;
mod shared;
mod store;

pub use resource::*;
pub use shared::Shared;
pub use store::{Store, Stored, Touched, Update};
