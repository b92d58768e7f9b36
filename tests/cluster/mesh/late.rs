//! Interception comes to a pod that runs already, without a restart of anything in it: on request, where it was taken off, and where
//! the agent of the node was not there when the pod started.

use harness::Output;
use harness::cluster::mesh::SYSTEM;
use harness::cluster::{LinkCapture, Mesh, Namespace};
use harness::wait::{self, SOON};
use serde_json::{Value, json};

use super::{client, mesh, mesh_alone, meshed, web};
use crate::common::{answered, cluster, named_server, pod};

/// Of a pod: its containers by their ids, and how often each has started again.
fn containers(namespace: &Namespace, name: &str) -> Vec<(String, u64)> {
    let pod = namespace.get(&["pod", name]).unwrap();
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let all = statuses
        .iter()
        .filter_map(|kind| pod["status"][kind].as_array())
        .flatten();
    let id = |one: &Value| one["containerID"].as_str().unwrap_or_default().to_owned();
    all.map(|one| (id(one), one["restartCount"].as_u64().unwrap()))
        .collect()
}

/// Runs our program in the pod of a node's agent, as a user does.
fn ask(mesh: &Mesh, node: &str, words: &[&str]) -> Output {
    let command = [&["outrigger"], words].concat();
    let agent = mesh.agent(node).unwrap();
    mesh.kubectl().exec(SYSTEM, &agent, &command).unwrap()
}

/// Connections of a client to this address that went through the mesh, with both identities.
fn meshed_flows(mesh: &Mesh, namespace: &Namespace, to: &str) -> usize {
    let identity = format!("spiffe://cluster.local/ns/{}/sa/default", namespace.name());
    let flows = mesh.flows("node-1").unwrap();
    let is_meant = |flow: &&Value| {
        flow["pod"] == format!("{}/client", namespace.name())
            && flow["originalDst"] == to
            && flow["transport"] == "hbone"
            && flow["sourceIdentity"] == identity.as_str()
            && flow["destinationIdentity"] == identity.as_str()
    };
    flows.iter().filter(is_meant).count()
}

#[test]
fn a_pod_that_was_taken_off_is_intercepted_again_on_request_and_nothing_in_it_starts_again() {
    let mesh = mesh();
    let namespace = meshed("late-again");
    let outside = Namespace::create(cluster().kubectl(), "late-plain").unwrap();
    let mut server = pod(
        "server",
        json!({ "nodeName": "node-2", "containers": [named_server()] }),
    );
    server["metadata"]["annotations"] = json!({ "outrigger.example/mode": "strict" });
    namespace.apply(&[server, client("client", "node-1")]).unwrap();
    outside.apply(&[client("plain", "node-1")]).unwrap();
    for (namespace, pod) in [
        (&namespace, "server"),
        (&namespace, "client"),
        (&outside, "plain"),
    ] {
        namespace.wait(&format!("pod/{pod}"), "condition=Ready").unwrap();
    }
    let server = namespace.get(&["pod", "server"]).unwrap();
    let uid = server["metadata"]["uid"].as_str().unwrap();
    let to = format!("{}:80", server["status"]["podIP"].as_str().unwrap());
    let url = format!("http://{to}/");
    let before = containers(&namespace, "server");
    assert_eq!(answered(&namespace, "client", &["curl", "-sS", &url]), "server\n");
    let is_refused = || {
        let plain = outside.exec("plain", &["curl", "-sS", "-m", "5", &url]).unwrap();
        !plain.status.success()
    };
    assert!(is_refused(), "it is strict");

    // While a sidecar serves, it has to be meant.
    let refused = ask(&mesh, "node-2", &["detach", "--uid", uid]);
    assert!(
        !refused.status.success() && refused.stderr.contains("--force"),
        "{refused:?}"
    );
    assert!(is_refused());
    ask(&mesh, "node-2", &["detach", "--uid", uid, "--force"])
        .ok()
        .unwrap();
    assert!(!is_refused(), "it is intercepted still");
    namespace.wait("pod/server", "condition=Ready=false").unwrap();

    let counted = meshed_flows(&mesh, &namespace, &to);
    ask(&mesh, "node-2", &["install", "--uid", uid]).ok().unwrap();
    wait::until("a plain client is refused again", SOON, is_refused).unwrap();
    namespace.wait("pod/server", "condition=Ready").unwrap();
    let capture = LinkCapture::start(cluster()).unwrap();
    // nginx listens since before.
    assert_eq!(answered(&namespace, "client", &["curl", "-sS", &url]), "server\n");
    let recording = capture.stop().unwrap();
    let address = namespace.get(&["pod", "client"]).unwrap()["status"]["podIP"].clone();
    let asked = recording.who_sent(b"GET / HTTP/1.1");
    let mut ours = asked.iter().filter(|(from, _)| address == from.ip().to_string());
    assert!(ours.next().is_none(), "a request crosses the link in plaintext");
    wait::until("the agent of the client knows both ends by name", SOON, || {
        meshed_flows(&mesh, &namespace, &to) > counted
    })
    .unwrap();
    assert_eq!(containers(&namespace, "server"), before);
}

/// Brings the agents back for the other tests, also where this one has failed.
struct Back<'m>(&'m Mesh<'static>);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        let _ = self.0.upgrade(&[]);
    }
}

#[test]
fn a_pod_that_starts_before_the_agent_waits_and_is_served_once_it_is_there() {
    let mesh = mesh_alone();
    let namespace = meshed("late-agent");
    namespace.apply(&web("web")).unwrap();
    namespace.wait("deployment/web", "condition=Available").unwrap();

    let back = Back(&mesh);
    // Of no node.
    mesh.upgrade(&["agent.nodeSelector.late=yes"]).unwrap();
    wait::until("no agent is left", SOON * 3, || {
        ["node-1", "node-2"].iter().all(|node| mesh.agent(node).is_err())
    })
    .unwrap();
    namespace.apply(&[client("client", "node-1")]).unwrap();
    wait::until("the new pod waits in its sidecar", SOON * 3, || {
        let pod = namespace.get(&["pod", "client"]).unwrap();
        let sidecar = &pod["status"]["initContainerStatuses"][0];
        sidecar["state"]["running"].is_object() && sidecar["started"] == false
    })
    .unwrap();
    let sidecar = containers(&namespace, "client").remove(0);
    drop(back);
    namespace.wait("pod/client", "condition=Ready").unwrap();
    assert_eq!(
        containers(&namespace, "client")[0],
        sidecar,
        "it was not started again"
    );

    answered(&namespace, "client", &["curl", "-sS", "http://web/"]);
    let service = format!("{0}/web.{0}.svc.cluster.local", namespace.name());
    wait::until("it is in the mesh", SOON, || {
        let flows = mesh.flows("node-1").unwrap();
        flows.iter().any(|flow| {
            flow["pod"] == format!("{}/client", namespace.name())
                && flow["service"] == service.as_str()
                && flow["transport"] == "hbone"
        })
    })
    .unwrap();
}
