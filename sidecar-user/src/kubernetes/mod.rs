//! WHAT DOES THE API SERVER SAY? The only room that speaks to it: one client, and what changes among its objects, as plain types of
//! ours. Decides nothing about what it hears.

mod access_review;
mod certificates;
mod client;
mod config_map;
mod event;
#[cfg(test)]
pub(crate) mod fake;
mod found_object;
mod found_service;
mod istio;
mod names;
mod node;
mod object;
mod optional;
mod own_right;
mod person;
mod pod;
mod pod_certificate;
mod pod_state;
mod port_forward;
mod probe;
mod secret;
mod seen_endpoint;
mod seen_node;
mod seen_pod;
mod server;
mod service;
mod service_endpoints;
mod slice;
mod token_review;
mod tried_pod;
mod trust_bundle;
mod watch;
mod webhook_configuration;
mod workload_pod;

pub use access_review::{Right, review_access};
pub use certificates::{CertificateKinds, Served, certificate_kinds};
pub use client::{Client, Error};
pub use config_map::{Found, find_config_map, publish};
pub use event::{Events, Told};
pub use found_object::{
    DAEMON_SET, DEPLOYMENT, GUARD, GUARD_BINDING, INJECTION_BINDING, INJECTION_POLICY, INJECTION_WEBHOOK,
    ObjectKind, find_object, namespace_labels,
};
pub use found_service::{FoundService, find_service};
pub use istio::{
    AuthorizationPolicy, AuthorizationSpec, IstioFrom, IstioMeta, IstioOperation, IstioRule, IstioSelector,
    IstioSource, IstioTo, IstioWhen, MutualTls, PeerAuthentication, PeerSpec,
};
pub use names::{
    AGENT, AGENT_LABELS, AGENT_PORT, ANNOTATION_ATTACH, ANNOTATION_MODE, ANNOTATION_STATUS, API_VERSION,
    CONTAINER, CONTROL, DOMAIN, LABEL_INJECT, POD_UID, ROOTS, ROOTS_KEY, SIGNER, SYSTEM_NAMESPACE,
    TOKEN_AUDIENCE, TOKEN_PATH, TRUST_BUNDLE, VIEWER,
};
pub use node::{Node, nodes};
pub use object::ObjectName;
pub use optional::{authorization_policies, peer_authentications};
pub use own_right::{OwnRight, own_rights};
pub use person::{Person, person, request_token};
pub use pod::{Pod, list_on_node, on_node};
pub use pod_certificate::{
    PodCertificateRequest, RequestedKey, Settled, Verdict, pod_certificate_requests, settle,
};
pub use pod_state::{PodState, pod_state};
pub use port_forward::{Duplex, Forwarded, port_forward};
pub use secret::{Secret, SecretChange, Version, change_secret, follow_secret, make_secret, read_secret};
pub use seen_endpoint::{SeenEndpoint, seen_endpoints};
pub use seen_node::{SeenNode, seen_nodes};
pub use seen_pod::{Made, Maker, SeenPod, labels_of, namespace_label, seen_pod, seen_pods};
pub use server::{Server, server};
pub use service::{Distribution, Families, Service, ServicePort, services};
pub use service_endpoints::follow_endpoints;
#[cfg(test)]
pub(crate) use slice::slice_of;
pub use slice::{Conditions, Hints, Place, Slice, SliceEndpoint, slices};
pub use token_review::{BoundPod, Reviewed, ServiceAccount, User, review_token, review_user};
pub use tried_pod::{Tried, try_pod};
pub use trust_bundle::{FoundBundle, Published, find_trust_bundle, publish_trust_bundle};
pub use watch::{Change, follow};
pub use webhook_configuration::{Bundle, WebhookConfiguration, base64};
pub use workload_pod::{Owner, WorkloadPod, workload_pods};
