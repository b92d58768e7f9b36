//! WHAT DO DISCOVERY SERVERS AND CLIENTS SAY? Istio workload discovery: its messages, and the state of its two ends.

mod client;
pub mod message;
mod resource;
mod server;
mod shared;
mod store;
#[cfg(test)]
pub(crate) mod testing;

pub use client::{Client, Received};
pub use resource::*;
pub use server::{Asked, Audience, BadRequest, Limits, ServerStream};
pub use shared::Shared;
pub use store::{Store, Stored, Touched, Update};
