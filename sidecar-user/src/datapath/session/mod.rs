//! SERVING: what a proxy needs of the kernel while it serves a pod whose programs are attached.

pub(super) mod app_ports;
mod bypass;
pub(super) mod explain;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod hold;
mod policy;
mod proof;
mod routes;
pub(super) mod settings;

pub use app_ports::AppPorts;
pub use bypass::Bypass;
pub use explain::{Action, Connect, Explain, Verdict};
pub use hold::{Approvals, HeldEvents, Hold};
pub use policy::PolicyMap;
pub use proof::{Dialled, Family, Lost, Proof, Unseen};
pub use routes::RouteMap;
