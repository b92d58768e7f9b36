//! Pods that come and go under load: no request of those who dial their Service is lost.

use harness::cluster::Namespace;
use serde_json::{Value, json};

use super::load::Load;
use super::{client, deployment, mesh, meshed, redis};
use crate::common::named_server;

/// nginx that serves on for a moment after it was told to end, as whoever wants to lose nothing has it.
fn patient_server() -> Value {
    let mut server = named_server();
    server["lifecycle"] = json!({ "preStop": { "exec": { "command": ["sleep", "5"] } } });
    server
}

fn loaded(stem: &str) -> Namespace<'static> {
    let namespace = meshed(stem);
    namespace
        .apply(&deployment("web", 2, patient_server(), 80))
        .unwrap();
    namespace.apply(&deployment("redis", 1, redis(), 6379)).unwrap();
    namespace.apply(&[client("client", "node-1")]).unwrap();
    for ready in ["deployment/web", "deployment/redis"] {
        namespace.wait(ready, "condition=Available").unwrap();
    }
    namespace.wait("pod/client", "condition=Ready").unwrap();
    namespace
}

#[test]
fn a_rolling_update_under_load_loses_no_request() {
    let _mesh = mesh();
    let namespace = loaded("rollout");
    let load = Load::start(&namespace, "client");
    let run = |args: &[&str]| {
        let args = [&["--namespace", namespace.name()], args].concat();
        namespace.kubectl().run(&args).unwrap();
    };
    run(&["rollout", "restart", "deployment/web"]);
    run(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    load.goes_on();
    let (new, kept) = load.stop();
    new.demand_all("new connections");
    kept.demand_all("a connection to somebody else");
}

#[test]
fn a_pod_that_is_deleted_under_load_loses_no_request() {
    let _mesh = mesh();
    let namespace = loaded("deleted");
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
    load.goes_on();
    let (new, kept) = load.stop();
    new.demand_all("new connections");
    kept.demand_all("a connection to somebody else");
}
