//! A pod of a namespace that is not in the mesh is left as it is.

use harness::cluster::Namespace;
use serde_json::Value;

use super::{client, mesh, meshed, web};
use crate::common::{answered, cluster};

#[test]
fn a_pod_outside_of_the_mesh_has_no_program_no_process_and_no_door() {
    let _mesh = mesh();
    let namespace = Namespace::create(cluster().kubectl(), "unmeshed").unwrap();
    namespace.apply(&[client("plain", "node-1")]).unwrap();
    namespace.wait("pod/plain", "condition=Ready").unwrap();
    let pod = namespace.get(&["pod", "plain"]).unwrap();
    assert_eq!(pod["spec"]["initContainers"], Value::Null, "{pod}");
    assert!(
        pod["metadata"]["annotations"]["outrigger.example/status"].is_null(),
        "{pod}"
    );
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let installed = cluster().installed_pods("node-1").unwrap();
    assert!(
        !installed.iter().any(|pod| pod == uid),
        "{uid} among {installed:?}"
    );
    let unix = namespace
        .exec("plain", &["cat", "/proc/net/unix"])
        .unwrap()
        .ok()
        .unwrap();
    assert!(!unix.contains("outrigger"), "{unix}");

    // And it reaches one inside, which takes it in the default mode.
    let inside = meshed("permissive");
    inside.apply(&web("web")).unwrap();
    inside.wait("deployment/web", "condition=Available").unwrap();
    let pods = inside.get(&["pods", "--selector=app=web"]).unwrap();
    let address = pods["items"][0]["status"]["podIP"].as_str().unwrap();
    answered(
        &namespace,
        "plain",
        &["curl", "-sS", &format!("http://{address}/")],
    );
}
