//! The container that is added to a pod, and its volumes. `changes.rs` says where they go.

use serde_json::{Value, json};

use super::pod::list;
use super::profile::Profile;
use crate::kubernetes::{CONTAINER, CONTROL, POD_UID, ROOTS, SIGNER, TOKEN_AUDIENCE, TOKEN_PATH};

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
/// Where the ports stand at which the kubelet asks, among those of a sidecar that attaches by itself.
pub(super) const PROBE_PORTS: usize = 1;

/// Of the volumes that are added.
pub(super) const VOLUMES: [&str; 7] = [
    TOKEN,
    FILES,
    RUN,
    NO_API_TOKEN,
    HOST_BPF,
    HOST_CGROUP,
    CONTROL_ROOTS,
];

/// Of a sidecar that attaches by itself: what it takes of the host, and the roots of the mesh.
const HOST_BPF: &str = "outrigger-bpf";
const HOST_CGROUP: &str = "outrigger-cgroup";
const CONTROL_ROOTS: &str = "outrigger-roots";
const BPF_PATH: &str = "/sys/fs/bpf";
const CGROUP_PATH: &str = "/host/cgroup";
const ROOTS_PATH: &str = "/var/run/outrigger/control";
/// Beside the directory of the nodes' agents, which take what is in theirs for their own.
const PINS: &str = "/sys/fs/bpf/outrigger/self";
/// Load the programs, attach them to the pod, and answer connect() in the place of its destination.
const CAPABILITIES: [&str; 4] = ["BPF", "PERFMON", "NET_ADMIN", "NET_RAW"];
/// A name of the replicas' own addresses: a Service's address may be nobody's until the sidecar serves.
const REPLICAS: &str = "outrigger-control-replicas";
const CONTROL_PORT: u16 = 15012;

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
        "volumeMounts": mounts(),
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

/// As [`env()`] of a sidecar that is given its certificates and asks nobody for them.
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

fn mounts() -> Vec<Value> {
    vec![
        json!({ "name": TOKEN, "mountPath": directory(), "readOnly": true }),
        json!({ "name": RUN, "mountPath": RUN_PATH }),
        // ServiceAccount admission leaves a container alone that mounts something there.
        json!({ "name": NO_API_TOKEN, "mountPath": API_TOKEN, "readOnly": true }),
    ]
}

/// As [`mounts`], and what attaching takes.
pub(super) fn own_mounts() -> Value {
    let mut all = mounts();
    all.extend([
        json!({ "name": HOST_BPF, "mountPath": BPF_PATH, "mountPropagation": "HostToContainer" }),
        json!({ "name": HOST_CGROUP, "mountPath": CGROUP_PATH, "mountPropagation": "HostToContainer", "readOnly": true }),
        json!({ "name": CONTROL_ROOTS, "mountPath": ROOTS_PATH, "readOnly": true }),
    ]);
    all.into()
}

/// Of root, because a container gives its capabilities to nobody else, and with no more than attaching takes.
pub(super) fn own_security() -> Value {
    json!({
        "runAsNonRoot": false,
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"], "add": CAPABILITIES },
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

fn said(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

fn of_pod(name: &str, field: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": field } } })
}

fn env(profile: &Profile) -> Value {
    let mut all = vec![said("OUTRIGGER_MODE", &profile.mode)];
    all.extend(whose());
    all.extend([
        said("OUTRIGGER_TRUST_DOMAIN", &profile.trust_domain),
        said("OUTRIGGER_AGENT", "@outrigger/agent"),
        said("OUTRIGGER_REGISTRY", "agent"),
        said("OUTRIGGER_AUTHORITY", "agent"),
    ]);
    all.extend(token(profile));
    all.into()
}

/// Of a sidecar that attaches by itself, and asks control by itself.
pub(super) fn own_env(profile: &Profile) -> Value {
    let service = |name: &str| format!("{name}.{}.svc", profile.system_namespace);
    let mut all = vec![
        said("OUTRIGGER_MODE", &profile.mode),
        said("OUTRIGGER_PROBE_PORTS", ""),
    ];
    all.extend(whose());
    all.extend([
        of_pod(POD_UID, "metadata.uid"),
        of_pod("OUTRIGGER_NODE_ADDRESSES", "status.hostIPs"),
        said("OUTRIGGER_TRUST_DOMAIN", &profile.trust_domain),
        said("OUTRIGGER_PINS", PINS),
        said("OUTRIGGER_REGISTRY", "control"),
        said(
            "OUTRIGGER_AUTHORITY",
            &format!("https://{}:{CONTROL_PORT}", service(REPLICAS)),
        ),
        said("OUTRIGGER_AUTHORITY_NAME", &service(CONTROL)),
        said(
            "OUTRIGGER_AUTHORITY_ROOTS",
            &format!("{ROOTS_PATH}/root-cert.pem"),
        ),
    ]);
    all.extend(token(profile));
    all.into()
}

/// Beside whom it stands.
fn whose() -> [Value; 5] {
    [
        of_pod("OUTRIGGER_NAME", "metadata.name"),
        of_pod("OUTRIGGER_NAMESPACE", "metadata.namespace"),
        of_pod("OUTRIGGER_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        of_pod("OUTRIGGER_ADDRESSES", "status.podIPs"),
        of_pod("OUTRIGGER_NODE", "spec.nodeName"),
    ]
}

fn token(profile: &Profile) -> [Value; 3] {
    [
        said("OUTRIGGER_TOKEN_FILE", TOKEN_PATH),
        // SIGTERM comes when the application has ended: nobody new is waited for, and what is open is brought to its end.
        said("OUTRIGGER_DRAIN_MINIMUM", "0s"),
        said("OUTRIGGER_REFRESH", &profile.refresh),
    ]
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

pub(super) fn own_volumes(profile: &Profile) -> impl Iterator<Item = Value> + use<> {
    let of_host =
        |name: &str, path: &str| json!({ "name": name, "hostPath": { "path": path, "type": "Directory" } });
    [
        of_host(HOST_BPF, &profile.host_paths.bpf),
        of_host(HOST_CGROUP, &profile.host_paths.cgroup),
        // Who brings it may come later: until then the sidecar waits, and says for what.
        json!({ "name": CONTROL_ROOTS, "configMap": { "name": ROOTS, "optional": true } }),
    ]
    .into_iter()
}
