//! WHAT DO DISCOVERY SERVERS AND CLIENTS SAY? Istio workload discovery: its messages, and the state of its two ends.

mod client;
mod demands;
mod follow;
pub mod message;
mod resource;
mod serve;
mod server;
mod shared;
mod store;
#[cfg(test)]
pub(crate) mod testing;

pub use client::{Client, Received};
pub use demands::{DemandLimits, Demands, Needs};
pub use follow::{Connect, Follower, Following, Link};
pub use resource::*;
pub use serve::{Discovery, Guests, ServerCounts};
pub use server::{Asked, Audience, BadRequest, Limits, ServerStream};
pub use shared::Shared;
pub use store::{Store, Stored, Touched, Update};
