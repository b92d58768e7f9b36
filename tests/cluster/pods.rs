//! What a pod can be here: with sidecars, with probes, looked into, in a cgroup that the agent of a node finds.

use std::fs;

use harness::cgroup;
use harness::cluster::{self, Namespace};
use harness::wait::{self, SOON};
use serde_json::json;

use crate::common::{CLIENT, cluster, container, idle, pod};

#[test]
fn an_application_starts_only_after_the_startup_probe_of_its_native_sidecar() {
    let namespace = Namespace::create(cluster().kubectl(), "native").unwrap();
    let mut sidecar = idle("sidecar");
    sidecar["restartPolicy"] = "Always".into();
    sidecar["startupProbe"] = json!({
        "exec": { "command": ["test", "-e", "/tmp/open"] },
        "periodSeconds": 1,
        "failureThreshold": 600,
    });
    let spec = json!({ "initContainers": [sidecar], "containers": [idle("main")] });
    namespace.apply(&[pod("gated", spec)]).unwrap();

    let exec = |container: &str, command: &[&str]| {
        let args = [
            "--namespace",
            namespace.name(),
            "exec",
            "gated",
            "--container",
            container,
            "--",
        ];
        namespace.kubectl().output(&[&args, command].concat()).unwrap()
    };
    wait::until("the sidecar runs", SOON * 3, || {
        exec("sidecar", &["true"]).status.success()
    })
    .unwrap();
    wait::until("the probe has failed", SOON * 3, || {
        let events = namespace.get(&["events"]).unwrap();
        let events = events["items"].as_array().unwrap();
        events
            .iter()
            .any(|event| event["reason"] == "Unhealthy" && event.to_string().contains("Startup probe failed"))
    })
    .unwrap();
    let pod = namespace.get(&["pod", "gated"]).unwrap();
    let main = &pod["status"]["containerStatuses"][0];
    assert_eq!(main["state"]["waiting"]["reason"], "PodInitializing", "{main}");

    exec("sidecar", &["touch", "/tmp/open"]).ok().unwrap();
    namespace.wait("pod/gated", "condition=Ready").unwrap();
    assert!(exec("main", &["true"]).status.success());
}

#[test]
fn exec_tells_how_the_program_ended_and_logs_what_it_said() {
    let namespace = Namespace::create(cluster().kubectl(), "said").unwrap();
    for (name, node) in [("one", "node-1"), ("two", "node-2")] {
        let script = format!("echo here is {name}; trap 'exit 0' TERM; sleep infinity & wait");
        let spec =
            json!({ "nodeName": node, "containers": [container("main", CLIENT, &["sh", "-c", &script])] });
        namespace.apply(&[pod(name, spec)]).unwrap();
        namespace.wait(&format!("pod/{name}"), "condition=Ready").unwrap();
        let ended = namespace
            .exec(name, &["sh", "-c", "echo out; echo err >&2; exit 7"])
            .unwrap();
        assert_eq!(
            (ended.code(), ended.stdout.as_str()),
            (Some(7), "out\n"),
            "{ended:?}"
        );
        assert!(ended.stderr.starts_with("err\n"), "{ended:?}");
        let logs = ["--namespace", namespace.name(), "logs", name];
        assert_eq!(
            namespace.kubectl().run(&logs).unwrap(),
            format!("here is {name}\n")
        );
    }
}

#[test]
fn a_pod_that_is_told_to_end_ends_by_itself() {
    let namespace = Namespace::create(cluster().kubectl(), "ends").unwrap();
    let script = "trap 'echo told; exit 5' TERM; echo up; sleep infinity & wait";
    let mut spec = json!({ "containers": [container("main", CLIENT, &["sh", "-c", script])] });
    // Longer than anybody waits here: only the signal ends it in time.
    spec["terminationGracePeriodSeconds"] = 600.into();
    namespace.apply(&[pod("obedient", spec)]).unwrap();
    namespace.wait("pod/obedient", "condition=Ready").unwrap();
    let delete = [
        "--namespace",
        namespace.name(),
        "delete",
        "pod",
        "obedient",
        "--timeout=50s",
    ];
    namespace.kubectl().run(&delete).unwrap();
}

/// The forms of the kubelet's cgroupfs driver, which the agent of a node knows.
#[test]
fn the_cgroup_of_a_pod_says_its_class_and_uid_and_that_of_a_container_its_id() {
    let namespace = Namespace::create(cluster().kubectl(), "classes").unwrap();
    let some = json!({ "cpu": "10m", "memory": "32Mi" });
    let classes = [
        ("besteffort", json!({}), "kubepods/besteffort"),
        ("burstable", json!({ "requests": some }), "kubepods/burstable"),
        (
            "guaranteed",
            json!({ "requests": some, "limits": some }),
            "kubepods",
        ),
    ];
    let root = cgroup::mount().unwrap();
    for node in ["node-1", "node-2"] {
        for (class, resources, above) in &classes {
            let name = format!("{class}-{node}");
            let mut container = idle("main");
            container["resources"] = resources.clone();
            let spec = json!({ "nodeName": node, "containers": [container] });
            namespace.apply(&[pod(&name, spec)]).unwrap();
            namespace.wait(&format!("pod/{name}"), "condition=Ready").unwrap();
            let pod = namespace.get(&["pod", &name]).unwrap();
            let uid = pod["metadata"]["uid"].as_str().unwrap();
            let container = pod["status"]["containerStatuses"][0]["containerID"]
                .as_str()
                .unwrap();
            let container = container.strip_prefix("containerd://").unwrap();
            let path = format!("{}/{node}/{above}/pod{uid}/{container}", cluster::NAME);
            let processes = cgroup::processes(&root.join(&path));
            assert!(!processes.is_empty(), "no process in {path}");
            for process in processes {
                let said = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
                let line = format!("0::/{path}");
                assert!(said.lines().any(|found| found == line), "{process}: {said}");
            }
        }
    }
}
