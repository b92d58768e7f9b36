//! A sidecar that is killed: its pod is closed, not in plaintext, until it is there again.

use harness::cluster::LinkCapture;
use harness::wait::{self, SOON};
use nix::sys::signal::Signal;

use super::{client, mesh, meshed, web};
use crate::common::{answered, cluster};

#[test]
fn a_sidecar_that_is_killed_comes_again_and_nothing_leaves_in_plaintext_meanwhile() {
    let _mesh = mesh();
    let namespace = meshed("sidecar-killed");
    namespace.apply(&web("web")).unwrap();
    namespace.apply(&[client("client", "node-1")]).unwrap();
    namespace.wait("deployment/web", "condition=Available").unwrap();
    namespace.wait("pod/client", "condition=Ready").unwrap();
    let ask = ["curl", "-sS", "-m", "5", "http://web/"];
    answered(&namespace, "client", &ask);

    let capture = LinkCapture::start(cluster()).unwrap();
    let restarts = || {
        let pod = namespace.get(&["pod", "client"]).unwrap();
        pod["status"]["initContainerStatuses"][0]["restartCount"]
            .as_u64()
            .unwrap()
    };
    let before = restarts();
    cluster()
        .signal_in_pod(namespace.name(), "client", "outrigger-proxy", Signal::SIGKILL)
        .unwrap();
    wait::until("the kubelet starts the sidecar again", SOON * 6, || {
        // The application goes on trying meanwhile.
        let _ = namespace.exec("client", &ask);
        restarts() > before
    })
    .unwrap();
    wait::until("the mesh serves the pod again", SOON * 3, || {
        namespace.exec("client", &ask).unwrap().status.success()
    })
    .unwrap();
    let recording = capture.stop().unwrap();
    assert!(
        !recording.holds(b"GET / HTTP/1.1"),
        "a request crosses the link in plaintext"
    );
}
