//! The container that is added to a pod, and its volumes. `changes.rs` says where they go.

use serde_json::{Value, json};

use super::pod::list;
use super::profile::Profile;
use crate::kubernetes::{CONTAINER, SIGNER, TOKEN_AUDIENCE, TOKEN_PATH};

/// The sidecar's user, which no container of the application may have: with a shared process namespace it could read the sidecar's
/// key. Not 65532, which is `nonroot` of the distroless images and of many manifests, nor 1337 and 2102, which are other meshes'.
pub(super) const USER: u32 = 52008;

/// Of the probes and the metrics.
pub(super) const STATUS_PORT: u16 = 15020;
/// Of mesh peers.
pub(super) const HBONE_PORT: u16 = 15008;
/// Of the admin endpoint, on loopback.
pub(super) const ADMIN_PORT: u16 = 15000;

/// A token lives for half a day, and the kubelet renews it in time.
const TOKEN_SECONDS: u32 = 43200;
/// A sidecar is given ten minutes for its agent and its first certificate, before the kubelet starts it anew.
const START_SECONDS: u32 = 600;

/// A certificate lives for a day, or for as long as control lets it; the kubelet asks for the next one in time.
const CERTIFICATE_SECONDS: u32 = 86400;

const TOKEN: &str = "outrigger-token";
/// Takes the place of the token.
pub(super) const FILES: &str = "outrigger-identity";
const RUN: &str = "outrigger-run";
const NO_API_TOKEN: &str = "outrigger-no-api-token";

/// Where the API server puts its token into every container that mounts nothing there.
const API_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Of the admin socket, which a read-only root has no place for.
const RUN_PATH: &str = "/run/outrigger";
const BUNDLE_FILE: &str = "bundle.pem";
const ROOTS_FILE: &str = "roots.pem";
const PROGRAM: &str = "/usr/bin/outrigger";

/// Where the mode stands among the variables, which a pod's own takes the place of.
pub(super) const MODE: usize = 0;

/// Of the volumes that are added.
pub(super) const VOLUMES: [&str; 4] = [TOKEN, FILES, RUN, NO_API_TOKEN];

/// Whether the pod has its sidecar already.
pub(super) fn is_in(pod: &Value) -> bool {
    let mut all = list(&pod["spec"], "initContainers").iter();
    all.any(|container| container["name"] == CONTAINER)
}

/// Without its resources, which depend on the pod.
pub(super) fn container(profile: &Profile) -> Value {
    let probe = |path: &str, period: u32, failures: u32, timeout: u32| {
        json!({
            "httpGet": { "path": path, "port": STATUS_PORT },
            "periodSeconds": period,
            "failureThreshold": failures,
            "timeoutSeconds": timeout,
        })
    };
    let mut container = json!({
        "name": CONTAINER,
        "image": profile.image,
        "args": ["proxy"],
        // From Kubernetes 1.33 on: it starts before all others, ends after them, and a Job does not wait for it.
        "restartPolicy": "Always",
        "env": env(profile),
        "ports": [{ "name": "outrigger-peers", "containerPort": HBONE_PORT }, { "name": "outrigger-stats", "containerPort": STATUS_PORT }],
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        // Met once and for all when connections are seen to get to the sidecar, it has a certificate and knows of the mesh: the next
        // container starts then.
        "startupProbe": probe("/startupz", 1, START_SECONDS, 2),
        "readinessProbe": probe("/readyz", 5, 2, 3),
        // Only for a process that hangs: everything else is better served by one that runs.
        "livenessProbe": probe("/livez", 20, 6, 5),
        // Tells that this pod is to get nobody new, and goes on serving: the application may need its network to the end.
        "lifecycle": { "preStop": { "exec": { "command": [PROGRAM, "drain", "--lame-duck"] } } },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            { "name": TOKEN, "mountPath": directory(), "readOnly": true },
            { "name": RUN, "mountPath": RUN_PATH },
            // ServiceAccount admission leaves a container alone that mounts something there.
            { "name": NO_API_TOKEN, "mountPath": API_TOKEN, "readOnly": true },
        ],
    });
    if let Some(policy) = &profile.pull_policy {
        container["imagePullPolicy"] = policy.clone().into();
    }
    container
}

/// Of the token, or of the files that take its place.
fn directory() -> &'static str {
    TOKEN_PATH
        .rsplit_once('/')
        .map_or(TOKEN_PATH, |(directory, _)| directory)
}

/// As [`env`] of a sidecar that is given its certificates and asks nobody for them.
pub(super) fn env_of_files(profile: &Profile) -> Value {
    let asks = ["OUTRIGGER_AUTHORITY", "OUTRIGGER_TOKEN_FILE", "OUTRIGGER_REFRESH"];
    let mut env = env(profile);
    if let Some(all) = env.as_array_mut() {
        all.retain(|variable| !asks.iter().any(|name| variable["name"] == *name));
        for (name, file) in [
            ("OUTRIGGER_IDENTITY_BUNDLE", BUNDLE_FILE),
            ("OUTRIGGER_AUTHORITY_ROOTS", ROOTS_FILE),
        ] {
            all.push(json!({ "name": name, "value": format!("{}/{file}", directory()) }));
        }
    }
    env
}

fn env(profile: &Profile) -> Value {
    let said = |name: &str, value: &str| json!({ "name": name, "value": value });
    let of_pod = |name: &str, field: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": field } } });
    json!([
        said("OUTRIGGER_MODE", &profile.mode),
        of_pod("OUTRIGGER_NAME", "metadata.name"),
        of_pod("OUTRIGGER_NAMESPACE", "metadata.namespace"),
        of_pod("OUTRIGGER_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        of_pod("OUTRIGGER_ADDRESSES", "status.podIPs"),
        of_pod("OUTRIGGER_NODE", "spec.nodeName"),
        said("OUTRIGGER_TRUST_DOMAIN", &profile.trust_domain),
        said("OUTRIGGER_AGENT", "@outrigger/agent"),
        said("OUTRIGGER_REGISTRY", "agent"),
        said("OUTRIGGER_AUTHORITY", "agent"),
        said("OUTRIGGER_TOKEN_FILE", TOKEN_PATH),
        // SIGTERM comes when the application has ended: nobody new is waited for, and what is open is brought to its end.
        said("OUTRIGGER_DRAIN_MINIMUM", "0s"),
        said("OUTRIGGER_REFRESH", &profile.refresh),
    ])
}

pub(super) fn resources(profile: &Profile) -> Value {
    let asked = &profile.resources;
    json!({
        "requests": { "cpu": asked.cpu, "memory": asked.memory },
        "limits": { "memory": asked.memory_limit },
    })
}

/// A pod is Guaranteed only where requests are limits in all its containers.
pub(super) fn guaranteed_resources(profile: &Profile) -> Value {
    let all = json!({ "cpu": profile.resources.guaranteed_cpu, "memory": profile.resources.memory_limit });
    json!({ "requests": all, "limits": all })
}

pub(super) fn token_volume() -> Value {
    json!({ "name": TOKEN, "projected": { "sources": [{ "serviceAccountToken": {
        "audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token" } }] } })
}

/// The key stays with the kubelet and the sidecar: nothing else mounts it.
pub(super) fn files_volume() -> Value {
    json!({ "name": FILES, "projected": { "sources": [
        { "podCertificate": { "signerName": SIGNER, "keyType": "ECDSAP256", "credentialBundlePath": BUNDLE_FILE,
            "maxExpirationSeconds": CERTIFICATE_SECONDS } },
        // By the signer and not by the bundle's name: of a name kubelets remember for minutes what it held (1.36, `dropCacheFor`).
        { "clusterTrustBundle": { "signerName": SIGNER, "labelSelector": {}, "path": ROOTS_FILE } },
    ] } })
}

/// Of every sidecar.
pub(super) fn volumes() -> [Value; 2] {
    [
        json!({ "name": RUN, "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }),
        json!({ "name": NO_API_TOKEN, "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }),
    ]
}
