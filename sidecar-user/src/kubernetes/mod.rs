//! WHAT DOES THE API SERVER SAY? The only room that speaks to it: one client, and what changes among its objects, as plain types of
//! ours. Decides nothing about what it hears.

mod certificates;
mod client;
mod names;
mod pod_certificate;
mod service_endpoints;
mod trust_bundle;
mod watch;

pub use certificates::{CertificateKinds, Served, certificate_kinds};
pub use client::{Client, Error};
pub use names::{
    ANNOTATION_STATUS, CONTAINER, DOMAIN, LABEL_INJECT, SIGNER, SYSTEM_NAMESPACE, TOKEN_AUDIENCE, TOKEN_PATH,
    TRUST_BUNDLE,
};
pub use pod_certificate::{
    PodCertificateRequest, RequestedKey, Settled, Verdict, pod_certificate_requests, settle,
};
pub use service_endpoints::follow_endpoints;
pub use trust_bundle::{Published, publish_trust_bundle};
pub use watch::{Change, follow};
