//! WHAT DO DISCOVERY SERVERS AND CLIENTS SAY? Istio workload discovery: its messages, and the state of its two ends.

pub mod message;
mod resource;
mod store;

pub use resource::*;
pub use store::{Store, Stored, Touched, Update};
