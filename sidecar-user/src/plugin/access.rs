//! Whom to ask: one endpoint that is named, or, over the API server, the agents of the nodes where the pods run. Asks nobody about flows
//! itself.
//!
//! ```text
//!   args.rs ─▶ session.rs: kubeconfig, token, roots ─▶ select.rs: pods ─▶ sources.rs: agents, and of which pods each is asked
//!                     │
//!                     └▶ dial.rs: port-forward, TLS ─▶ client.rs speaks HTTP
//! ```

mod args;
mod dial;
mod select;
mod session;
mod sources;

pub(super) use args::{AccessArgs, SelectorArgs};
pub(super) use dial::AgentPod;
pub(super) use session::Session;
pub(super) use sources::{Source, Sources};
