//! Names in a cluster that are ours, each in one place.

/// `concat!` takes literals and no constants.
macro_rules! domain {
    () => {
        "outrigger.example"
    };
}

/// Of every label, annotation, taint, signer and document.
pub const DOMAIN: &str = domain!();
/// Of the documents that `kubectl outrigger` prints.
pub const API_VERSION: &str = concat!(domain!(), "/v1alpha1");
/// On a namespace and on a pod, where it wins: `enabled` or `disabled`.
pub const LABEL_INJECT: &str = concat!(domain!(), "/inject");
/// On a pod that has its sidecar, written by the injector.
pub const ANNOTATION_STATUS: &str = concat!(domain!(), "/status");
/// The sidecar's container, the first of `initContainers`.
pub const CONTAINER: &str = "outrigger-proxy";
/// Where Outrigger itself is installed unless told otherwise.
pub const SYSTEM_NAMESPACE: &str = "outrigger-system";
/// Of the projected token by which a pod says who it is.
pub const TOKEN_AUDIENCE: &str = "outrigger";
/// That token, in the sidecar's container.
pub const TOKEN_PATH: &str = "/var/run/secrets/outrigger/token";
/// The process that signs, tells what exists and injects, and its Service.
pub const CONTROL: &str = "outrigger-control";
/// The service account of the nodes' agents.
pub const AGENT: &str = "outrigger-agent";
/// Whom a pod that projects a `podCertificate` names as its signer.
pub const SIGNER: &str = concat!(domain!(), "/workload");
/// The ClusterTrustBundle of that signer's roots: the API server wants the signer's name before it, with a colon for the slash.
pub const TRUST_BUNDLE: &str = concat!(domain!(), ":workload:root");
/// On a pod: `strict` or `permissive`, for its sidecar alone.
pub const ANNOTATION_MODE: &str = concat!(domain!(), "/mode");
/// The variable that tells a sidecar the UID of its pod, to which it attaches by itself then: no agent does.
pub const POD_UID: &str = "OUTRIGGER_POD_UID";
/// On a pod: `agent` or `self`, who attaches the programs to it.
pub const ANNOTATION_ATTACH: &str = concat!(domain!(), "/attach");
/// In a pod's namespace, for sidecars that attach by themselves: the roots of the mesh, as control keeps them in its own.
pub const ROOTS: &str = "outrigger-ca";
/// The service account whose token those ask for who show the API server a certificate.
pub const VIEWER: &str = "outrigger-viewer";
/// Of the agents' pods.
pub const AGENT_LABELS: &str = "app.kubernetes.io/name=outrigger,app.kubernetes.io/component=agent";
/// Where an agent answers people, on loopback of its node.
pub const AGENT_PORT: u16 = 15030;
/// In the ConfigMap of the mesh's roots.
pub const ROOTS_KEY: &str = "root-cert.pem";
