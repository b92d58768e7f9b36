//! WHAT DOES THE API SERVER SAY? The only room that speaks to it: one client, and what changes among its objects, as plain types of
//! ours. Decides nothing about what it hears.

mod certificates;
mod client;
mod config_map;
mod event;
#[cfg(test)]
pub(crate) mod fake;
mod istio;
mod names;
mod node;
mod object;
mod optional;
mod pod;
mod pod_certificate;
mod pod_state;
mod probe;
mod secret;
mod service;
mod service_endpoints;
mod slice;
mod token_review;
mod trust_bundle;
mod watch;
mod webhook_configuration;
mod workload_pod;

pub use certificates::{CertificateKinds, Served, certificate_kinds};
pub use client::{Client, Error};
pub use config_map::{Found, find_config_map, publish};
pub use event::{Events, Told};
pub use istio::{
    AuthorizationPolicy, AuthorizationSpec, IstioFrom, IstioMeta, IstioOperation, IstioRule, IstioSelector,
    IstioSource, IstioTo, IstioWhen, MutualTls, PeerAuthentication, PeerSpec,
};
pub use names::{
    AGENT, ANNOTATION_ATTACH, ANNOTATION_MODE, ANNOTATION_STATUS, API_VERSION, CONTAINER, CONTROL, DOMAIN,
    LABEL_INJECT, POD_UID, ROOTS, SIGNER, SYSTEM_NAMESPACE, TOKEN_AUDIENCE, TOKEN_PATH, TRUST_BUNDLE,
};
pub use node::{Node, nodes};
pub use object::ObjectName;
pub use optional::{authorization_policies, peer_authentications};
pub use pod::{Pod, list_on_node, on_node};
pub use pod_certificate::{
    PodCertificateRequest, RequestedKey, Settled, Verdict, pod_certificate_requests, settle,
};
pub use pod_state::{PodState, pod_state};
pub use secret::{Secret, SecretChange, Version, change_secret, follow_secret, make_secret, read_secret};
pub use service::{Distribution, Families, Service, ServicePort, services};
pub use service_endpoints::follow_endpoints;
#[cfg(test)]
pub(crate) use slice::slice_of;
pub use slice::{Conditions, Hints, Place, Slice, SliceEndpoint, slices};
pub use token_review::{BoundPod, Reviewed, ServiceAccount, review_token};
pub use trust_bundle::{FoundBundle, Published, find_trust_bundle, publish_trust_bundle};
pub use watch::{Change, follow};
pub use webhook_configuration::{Bundle, WebhookConfiguration, base64};
pub use workload_pod::{Owner, WorkloadPod, workload_pods};
