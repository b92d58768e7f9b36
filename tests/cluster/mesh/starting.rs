//! How pods of the mesh start and end: nothing leaves in plaintext before the sidecar serves, and Jobs complete.

use harness::cluster::LinkCapture;
use serde_json::{Value, json};

use super::{mesh, meshed, web};
use crate::common::{CLIENT, cluster, container};

fn job(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
        "spec": { "backoffLimit": 0, "template": { "spec": {
            "nodeName": "node-1",
            "restartPolicy": "Never",
            "containers": [container("main", CLIENT, &["sh", "-c", script])],
        }}},
    })
}

#[test]
fn a_job_is_complete_when_its_program_is_and_what_it_sends_first_is_encrypted() {
    let _mesh = mesh();
    let namespace = meshed("job");
    namespace.apply(&web("web")).unwrap();
    namespace.wait("deployment/web", "condition=Available").unwrap();
    let capture = LinkCapture::start(cluster()).unwrap();
    // No patience: the first connection of the first moment has to work.
    let ask =
        "for n in 1 2 3 4 5 6 7 8; do curl -sS -m 10 -H 'X-Secret: first-words' http://web/ || exit 1; done";
    namespace.apply(&[job("first", ask)]).unwrap();
    namespace.wait("job/first", "condition=Complete").unwrap();
    let recording = capture.stop().unwrap();
    assert!(
        !recording.holds(b"first-words"),
        "the first request crosses the link in plaintext"
    );
    assert!(
        !recording.tls_versions(15008).is_empty(),
        "nothing was sent through the mesh"
    );
    // The sidecar has ended with it.
    namespace
        .wait("job/first", "jsonpath={.status.succeeded}=1")
        .unwrap();
}
