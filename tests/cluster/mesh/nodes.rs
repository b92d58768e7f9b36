//! The cluster's own programs go away for a moment: the kubelet of a node, the API server. Pods of the mesh do not notice.

use harness::wait::{self, SOON};
use nix::sys::signal::Signal;

use super::load::{Load, served};
use super::{client, mesh_alone};
use crate::common::{cluster, named_server};

fn under_load(stem: &str, what: impl FnOnce()) {
    let namespace = served(stem, named_server(), &[("client", "node-1")]);
    let load = Load::start(&namespace, "client");
    what();
    load.demand_all();
    // And whoever is new is served.
    namespace.apply(&[client("late", "node-2")]).unwrap();
    namespace.wait("pod/late", "condition=Ready").unwrap();
}

#[test]
fn a_kubelet_that_is_restarted_costs_no_connection() {
    let _mesh = mesh_alone();
    under_load("kubelet", || {
        for node in ["node-1", "node-2"] {
            let kubelet = cluster().program(node, "kubelet").unwrap();
            kubelet.stop(Signal::SIGTERM).unwrap();
            kubelet.start().unwrap();
            cluster()
                .kubectl()
                .run(&[
                    "wait",
                    &format!("node/{node}"),
                    "--for=condition=Ready",
                    "--timeout=60s",
                ])
                .unwrap();
        }
    });
}

#[test]
fn an_api_server_that_is_away_for_a_while_costs_no_connection() {
    let _mesh = mesh_alone();
    under_load("api-server", || {
        let server = cluster().program("node-1", "kube-apiserver").unwrap();
        // Told to end it would wait a minute for its watches.
        server.stop(Signal::SIGKILL).unwrap();
        server.start().unwrap();
        wait::until("the API server answers again", SOON * 6, || {
            cluster()
                .kubectl()
                .output(&["get", "--raw=/readyz"])
                .is_ok_and(|said| said.status.success())
        })
        .unwrap();
    });
}
