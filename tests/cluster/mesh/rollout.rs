//! Pods that come and go under load: no request of those who dial their Service is lost.

use serde_json::{Value, json};

use super::load::{Load, served};
use super::mesh;
use crate::common::named_server;

/// nginx that serves on for a moment after it was told to end, as whoever wants to lose nothing has it.
fn patient_server() -> Value {
    let mut server = named_server();
    server["lifecycle"] = json!({ "preStop": { "exec": { "command": ["sleep", "5"] } } });
    server
}

#[test]
fn a_rolling_update_under_load_loses_no_request() {
    let _mesh = mesh();
    let namespace = served("rollout", patient_server(), &[("client", "node-1")]);
    let load = Load::start(&namespace, "client");
    let run = |args: &[&str]| {
        let args = [&["--namespace", namespace.name()], args].concat();
        namespace.kubectl().run(&args).unwrap();
    };
    run(&["rollout", "restart", "deployment/web"]);
    run(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    load.demand_all();
}

#[test]
fn a_pod_that_is_deleted_under_load_loses_no_request() {
    let _mesh = mesh();
    let namespace = served("deleted", patient_server(), &[("client", "node-1")]);
    let load = Load::start(&namespace, "client");
    let pods = namespace.get(&["pods", "--selector=app=web"]).unwrap();
    let one = pods["items"][0]["metadata"]["name"].as_str().unwrap();
    let delete = [
        "--namespace",
        namespace.name(),
        "delete",
        "pod",
        one,
        "--timeout=60s",
    ];
    namespace.kubectl().run(&delete).unwrap();
    load.demand_all();
}
