//! Outrigger's own processes around the pods: control, registry and sidecars, one by one or as a whole. Reads no
//! type of the `outrigger` crate: it uses the documented files, commands and sockets, as a user would.

pub mod agent;
pub mod binaries;
pub mod control;
mod metrics;
pub mod registry;
pub mod sidecar;
pub mod whole;

pub use control::Control;
pub use registry::{Registry, RegistryFile};
pub use sidecar::{Options, Sidecar};
pub use whole::{Mesh, Plan};

/// What everything in a test belongs to, unless the test says otherwise.
pub const TRUST_DOMAIN: &str = "cluster.local";
pub const NAMESPACE: &str = "demo";

/// Well-known ports (`listen` in the proxy's configuration).
pub mod ports {
    pub const HBONE: u16 = 15008;
    pub const CONTROL: u16 = 15012;
    pub const STATUS: u16 = 15020;
}

/// The SPIFFE ID of a service account of the test's namespace and trust domain.
pub fn identity(service_account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{service_account}")
}
