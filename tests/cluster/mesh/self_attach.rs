//! Sidecars that attach by themselves: no agent has a part in their pods, and their pods are in the mesh as others are.

use harness::cluster::mesh::SYSTEM;
use harness::cluster::{LinkCapture, Namespace};
use harness::wait::{self, SOON};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{client, enable, mesh, meshed, web};
use crate::common::{NGINX, answered, cluster, container, idle, named_server, pod, service};

/// A namespace whose pods may be privileged, with the roots of the mesh.
fn privileged(stem: &str) -> Namespace<'static> {
    let namespace = Namespace::create(cluster().kubectl(), stem).unwrap();
    let label = "pod-security.kubernetes.io/enforce=privileged";
    namespace
        .kubectl()
        .run(&["label", "namespace", namespace.name(), label])
        .unwrap();
    let roots = namespace
        .kubectl()
        .get(&["--namespace", SYSTEM, "configmap", "outrigger-ca"])
        .unwrap();
    namespace
        .apply(&[json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "outrigger-ca" }, "data": roots["data"],
        })])
        .unwrap();
    namespace
}

/// What a sidecar takes that attaches by itself.
const CAPABILITIES: [&str; 4] = ["BPF", "PERFMON", "NET_ADMIN", "NET_RAW"];

/// A pod with such a sidecar, written by hand.
fn attached(name: &str, node: &str, mode: &str, main: Value) -> Value {
    let said = |name: &str, value: &str| json!({ "name": name, "value": value });
    let of_pod = |name: &str, field: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": field } } });
    let probe = |path: &str| json!({ "httpGet": { "path": path, "port": 15020 }, "periodSeconds": 1 });
    let control = format!("outrigger-control.{SYSTEM}.svc");
    let cgroups = harness::cgroup::mount().unwrap();
    let mut startup = probe("/startupz");
    startup["failureThreshold"] = 120.into();
    let sidecar = json!({
        "name": "outrigger-proxy",
        "image": "outrigger.example/outrigger:local",
        "imagePullPolicy": "Never",
        "args": ["proxy"],
        "restartPolicy": "Always",
        "env": [
            said("OUTRIGGER_MODE", mode),
            of_pod("OUTRIGGER_NAME", "metadata.name"),
            of_pod("OUTRIGGER_NAMESPACE", "metadata.namespace"),
            of_pod("OUTRIGGER_SERVICE_ACCOUNT", "spec.serviceAccountName"),
            of_pod("OUTRIGGER_ADDRESSES", "status.podIPs"),
            of_pod("OUTRIGGER_NODE", "spec.nodeName"),
            of_pod("OUTRIGGER_POD_UID", "metadata.uid"),
            said("OUTRIGGER_PINS", "/sys/fs/bpf/outrigger/self"),
            of_pod("OUTRIGGER_NODE_ADDRESSES", "status.hostIPs"),
            said("OUTRIGGER_PROBE_PORTS", "80"),
            said("OUTRIGGER_REGISTRY", "control"),
            said("OUTRIGGER_AUTHORITY", &format!("https://outrigger-control-replicas.{SYSTEM}.svc:15012")),
            said("OUTRIGGER_AUTHORITY_NAME", &control),
            said("OUTRIGGER_AUTHORITY_ROOTS", "/var/run/outrigger/control/root-cert.pem"),
            said("OUTRIGGER_TOKEN_FILE", "/var/run/secrets/outrigger/token"),
            said("OUTRIGGER_DRAIN_MINIMUM", "0s"),
        ],
        "startupProbe": startup,
        "readinessProbe": probe("/readyz"),
        "lifecycle": { "preStop": { "exec": { "command": ["/usr/bin/outrigger", "drain", "--lame-duck"] } } },
        "securityContext": {
            "runAsUser": 0, "runAsGroup": 0, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "seccompProfile": { "type": "RuntimeDefault" },
            "capabilities": { "drop": ["ALL"], "add": CAPABILITIES },
        },
        "volumeMounts": [
            { "name": "token", "mountPath": "/var/run/secrets/outrigger", "readOnly": true },
            { "name": "roots", "mountPath": "/var/run/outrigger/control", "readOnly": true },
            { "name": "run", "mountPath": "/run/outrigger" },
            { "name": "bpf", "mountPath": "/sys/fs/bpf", "mountPropagation": "HostToContainer" },
            { "name": "cgroup", "mountPath": "/host/cgroup", "mountPropagation": "HostToContainer", "readOnly": true },
        ],
    });
    pod(
        name,
        json!({
            "nodeName": node,
            "initContainers": [sidecar],
            "containers": [main],
            "volumes": [
                { "name": "token", "projected": { "sources": [{ "serviceAccountToken": {
                    "audience": "outrigger", "expirationSeconds": 3600, "path": "token" } }] } },
                { "name": "roots", "configMap": { "name": "outrigger-ca" } },
                { "name": "run", "emptyDir": { "medium": "Memory" } },
                { "name": "bpf", "hostPath": { "path": "/sys/fs/bpf", "type": "Directory" } },
                { "name": "cgroup", "hostPath": { "path": cgroups, "type": "Directory" } },
            ],
        }),
    )
}

fn uid(namespace: &Namespace, pod: &str) -> String {
    let pod = namespace.get(&["pod", pod]).unwrap();
    pod["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn restarts(namespace: &Namespace, pod: &str) -> u64 {
    let pod = namespace.get(&["pod", pod]).unwrap();
    pod["status"]["initContainerStatuses"][0]["restartCount"]
        .as_u64()
        .unwrap_or_default()
}

/// A server and a client with such sidecars, one on each node, once both are ready.
fn pair(stem: &str, mode: &str) -> Namespace<'static> {
    let own = privileged(stem);
    own.apply(&[
        attached("web", "node-2", mode, named_server()),
        service("web", 80),
        attached("client", "node-1", mode, idle("main")),
    ])
    .unwrap();
    own.wait("pod/web", "condition=Ready").unwrap();
    own.wait("pod/client", "condition=Ready").unwrap();
    own
}

#[test]
fn a_sidecar_that_attaches_by_itself_is_in_the_mesh_and_no_agent_has_a_part_in_its_pod() {
    let _mesh = mesh();
    let agents = meshed("self-attach-agents");
    agents.apply(&web("web")).unwrap();
    agents.apply(&[client("client", "node-2")]).unwrap();
    agents.wait("deployment/web", "condition=Available").unwrap();
    agents.wait("pod/client", "condition=Ready").unwrap();

    // The server is ready by the kubelet's probe, which comes in plaintext to a strict pod.
    let own = pair("self-attach", "strict");

    let capture = LinkCapture::start(cluster()).unwrap();
    let ask = |url: &str| ["curl", "-sS", "-m", "5", url].map(str::to_owned);
    let said = |namespace: &Namespace, url: &str| {
        let command = ask(url);
        answered(namespace, "client", &command.each_ref().map(String::as_str))
    };
    assert_eq!(said(&own, "http://web/").trim(), "web");
    let theirs = format!("http://web.{}/", agents.name());
    assert!(said(&own, &theirs).starts_with("web-"));
    let ours = format!("http://web.{}/", own.name());
    assert_eq!(said(&agents, &ours).trim(), "web");
    let recording = capture.stop().unwrap();
    assert!(
        !recording.holds(b"GET / HTTP/1.1"),
        "a request crosses the link in plaintext"
    );
    let versions = recording.tls_versions(15008);
    assert!(
        !versions.is_empty() && versions.iter().all(|version| *version == 0x0304),
        "{versions:x?}"
    );

    for (pod, node) in [("client", "node-1"), ("web", "node-2")] {
        let uid = uid(&own, pod);
        assert!(!cluster().installed_pods(node).unwrap().contains(&uid), "{pod}");
        assert!(
            cluster().self_attached_pods(node).unwrap().contains(&uid),
            "{pod}"
        );
    }

    // Whoever is deleted leaves nothing.
    let uids = [("client", "node-1"), ("web", "node-2")].map(|(pod, node)| (uid(&own, pod), node));
    own.kubectl()
        .run(&[
            "--namespace",
            own.name(),
            "delete",
            "pods",
            "--all",
            "--timeout=60s",
        ])
        .unwrap();
    for (uid, node) in uids {
        let pinned = || cluster().self_attached_pods(node).unwrap();
        wait::until("nothing is pinned of the pod", SOON, || !pinned().contains(&uid)).unwrap();
    }
}

#[test]
fn a_sidecar_that_attaches_by_itself_and_is_killed_leaves_its_pod_closed_and_adopts_it() {
    let _mesh = mesh();
    let own = pair("self-attach-killed", "permissive");
    let ask = ["curl", "-sS", "-m", "5", "http://web/"];
    answered(&own, "client", &ask);

    let capture = LinkCapture::start(cluster()).unwrap();
    let before = restarts(&own, "client");
    cluster()
        .signal_in_pod(own.name(), "client", "outrigger-proxy", Signal::SIGKILL)
        .unwrap();
    wait::until("the kubelet starts the sidecar again", SOON * 6, || {
        // The application goes on trying meanwhile.
        let _ = own.exec("client", &ask);
        restarts(&own, "client") > before
    })
    .unwrap();
    wait::until("the mesh serves the pod again", SOON * 3, || {
        own.exec("client", &ask).unwrap().status.success()
    })
    .unwrap();
    let recording = capture.stop().unwrap();
    assert!(
        !recording.holds(b"GET / HTTP/1.1"),
        "a request crosses the link in plaintext"
    );
    let uid = uid(&own, "client");
    assert!(cluster().self_attached_pods("node-1").unwrap().contains(&uid));

    // One that cannot end in order leaves what is pinned, and the node's agent removes it.
    let pod = own.get(&["pod", "client"]).unwrap();
    let cgroup = cluster().pod_cgroup(&pod).unwrap();
    assert!(cgroup.exists());
    cluster()
        .signal_in_pod(own.name(), "client", "outrigger-proxy", Signal::SIGSTOP)
        .unwrap();
    let delete = ["delete", "pod", "client", "--grace-period=1", "--timeout=60s"];
    own.kubectl()
        .run(&[&["--namespace", own.name()][..], &delete].concat())
        .unwrap();
    wait::until("the kubelet removes the pod's cgroup", SOON * 3, || {
        !cgroup.exists()
    })
    .unwrap();
    wait::until("nothing of the pod is pinned", SOON, || {
        !cluster().self_attached_pods("node-1").unwrap().contains(&uid)
    })
    .unwrap();
}

#[test]
fn the_kubelet_is_told_the_truth_past_a_sidecar_that_attaches_by_itself() {
    let _mesh = mesh();
    let own = privileged("self-attach-probes");
    let script = "printf '%s' 'pid /tmp/nginx.pid; events { } http { server { listen 80; location / { return 200; } } }' \
        >/tmp/nginx.conf; nginx -c /tmp/nginx.conf; exec sleep infinity";
    for (mode, probe) in [
        ("strict", json!({ "httpGet": { "path": "/", "port": 80 } })),
        ("permissive", json!({ "tcpSocket": { "port": 80 } })),
    ] {
        let mut server = container("nginx", NGINX, &["sh", "-c", script]);
        server["readinessProbe"] = probe;
        server["readinessProbe"]["periodSeconds"] = 1.into();
        server["readinessProbe"]["failureThreshold"] = 1.into();
        let mut pod = attached(mode, "node-1", mode, server);
        pod["spec"]["terminationGracePeriodSeconds"] = 1.into();
        own.apply(&[pod]).unwrap();
        let ready = format!("pod/{mode}");
        own.wait(&ready, "condition=Ready").unwrap();
        let kill = ["sh", "-c", "kill $(cat /tmp/nginx.pid)"];
        own.exec(mode, &kill).unwrap().ok().unwrap();
        own.wait(&ready, "condition=Ready=false").unwrap();
    }
}

#[test]
fn a_sidecar_that_cannot_attach_by_itself_says_all_that_is_missing() {
    let _mesh = mesh();
    let own = privileged("self-attach-refused");
    let mut poor = attached("poor", "node-1", "permissive", idle("main"));
    let sidecar = &mut poor["spec"]["initContainers"][0];
    sidecar["securityContext"]["capabilities"] = json!({ "drop": ["ALL"] });
    let mounts = sidecar["volumeMounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["name"] != "cgroup" && mount["name"] != "bpf");
    own.apply(&[poor]).unwrap();
    let said = || {
        let logs = ["logs", "poor", "--container=outrigger-proxy"];
        let logs = own
            .kubectl()
            .output(&[&["--namespace", own.name()][..], &logs].concat())?;
        Ok((logs.stdout.contains("cannot attach")).then_some(logs.stdout))
    };
    let said = harness::wait::until_some("the sidecar says why", SOON * 6, said).unwrap();
    for named in [
        "CAP_BPF",
        "CAP_PERFMON",
        "CAP_NET_ADMIN",
        "hostPath /sys/fs/cgroup",
        "hostPath /sys/fs/bpf",
    ] {
        assert!(said.contains(named), "{named}: {said}");
    }
}

fn asks(mut pod: Value) -> Value {
    pod["metadata"]["annotations"] =
        json!({ "outrigger.example/attach": "self", "outrigger.example/mode": "strict" });
    pod
}

#[test]
fn a_pod_that_asks_for_it_is_given_a_sidecar_that_attaches_by_itself() {
    let _mesh = mesh();
    let own = privileged("self-attach-injected");
    enable(&own);
    let web = pod(
        "web",
        json!({ "nodeName": "node-2", "containers": [named_server()] }),
    );
    own.apply(&[asks(web), service("web", 80), asks(client("client", "node-1"))])
        .unwrap();
    // The probe's port was told to the sidecar when it was injected: nobody else gets in in plaintext.
    own.wait("pod/web", "condition=Ready").unwrap();
    own.wait("pod/client", "condition=Ready").unwrap();
    let ask = ["curl", "-sS", "-m", "5", "http://web/"];
    assert_eq!(answered(&own, "client", &ask).trim(), "web");
    for (pod, node) in [("client", "node-1"), ("web", "node-2")] {
        let uid = uid(&own, pod);
        assert!(!cluster().installed_pods(node).unwrap().contains(&uid), "{pod}");
        assert!(
            cluster().self_attached_pods(node).unwrap().contains(&uid),
            "{pod}"
        );
    }

    // Where the namespace does not allow it, the API server says what it refuses.
    let baseline = meshed("self-attach-baseline");
    let label = "pod-security.kubernetes.io/enforce=baseline";
    baseline
        .kubectl()
        .run(&["label", "namespace", baseline.name(), label])
        .unwrap();
    let refused = baseline.apply(&[asks(client("client", "node-1"))]).unwrap_err();
    let refused = format!("{refused:#}");
    for named in ["violates PodSecurity", "outrigger-proxy", "hostPath"] {
        assert!(refused.contains(named), "{named}: {refused}");
    }
    baseline.apply(&[client("client", "node-1")]).unwrap();
}
