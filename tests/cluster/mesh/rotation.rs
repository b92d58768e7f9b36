//! The root is replaced in steps while everything runs, with the authority in its Secret and two replicas that sign.

use std::time::Duration;

use harness::cluster::mesh::SYSTEM;
use harness::cluster::{Mesh, Namespace};
use harness::process::Output;
use harness::wait::{self, SOON};
use nix::sys::signal::Signal;
use rustls::AlertDescription;
use serde_json::Value;

use super::load::{Load, served};
use super::mesh_alone;
use super::peer::{Met, Root, meet};
use crate::common::{cluster, named_server};

/// A step waits for certificates of this life and an eighth of it; no kubelet needs longer to bring changed roots to an agent.
const LEAF_TTL: Duration = Duration::from_secs(60);
const FOLLOWED: Duration = Duration::from_secs(60 * 9 / 8 + 40);

/// Brings the values of the other tests back, also where this one has failed.
struct Back<'m>(&'m Mesh<'static>);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.upgrade(&[]) {
            eprintln!("{error:#}");
        }
    }
}

/// A command on the authority, as an operator types it.
fn ca(mesh: &Mesh, words: &[&str]) -> Output {
    let control = [
        "--namespace",
        SYSTEM,
        "exec",
        "deployment/outrigger-control",
        "--",
    ];
    let command = ["outrigger", "ca"];
    mesh.kubectl()
        .output(&[&control[..], &command, words].concat())
        .unwrap()
}

/// Takes a step as soon as it may be taken.
fn step(mesh: &Mesh, step: &str) {
    let mut said = String::new();
    let taken = wait::until("the step is possible", FOLLOWED, || {
        // While a replica starts again, nothing runs in it.
        let output = ca(mesh, &["rotate", step]);
        said = output.stderr;
        output.status.success()
    });
    taken.unwrap_or_else(|error| panic!("{step}: {error}: {said}"));
}

/// It is not taken yet, and why.
fn too_early(mesh: &Mesh, step: &str, why: &str) {
    wait::until_some("a replica runs that can be asked", SOON * 3, || {
        let output = ca(mesh, &["rotate", step]);
        assert!(!output.status.success(), "{step} is taken: {}", output.stdout);
        let is_answer = output.stderr.contains("the root is not replaced further");
        assert!(!is_answer || output.stderr.contains(why), "{}", output.stderr);
        Ok(is_answer.then_some(()))
    })
    .unwrap();
}

fn kept(mesh: &Mesh, kind: &str, template: &str) -> String {
    let output = format!("--output=go-template={template}");
    let object = ["--namespace", SYSTEM, "get", kind, "outrigger-ca"];
    mesh.kubectl().run(&[&object[..], &[&output]].concat()).unwrap()
}

/// The root that is the only one now.
fn root(mesh: &Mesh) -> Root {
    let [certificate, key] = ["root-cert.pem", "root-key.pem"].map(|key| {
        kept(
            mesh,
            "secret",
            &format!("{{{{index .data \"{key}\" | base64decode}}}}"),
        )
    });
    Root::new(&certificate, &key)
}

fn published(mesh: &Mesh) -> String {
    kept(mesh, "configmap", "{{index .data \"root-cert.pem\"}}")
}

fn replicas(mesh: &Mesh) -> Vec<Value> {
    let label = "--selector=app.kubernetes.io/component=control";
    let pods = mesh
        .kubectl()
        .get(&["--namespace", SYSTEM, "pods", label])
        .unwrap();
    pods["items"].as_array().unwrap().clone()
}

/// Certificates of other tests' pods live for a day, and a rotation would wait for them. None of these pods is in the mesh any more.
fn forget_other_certificates(mesh: &Mesh) {
    // One that is on its way out still notes how long its own would live.
    wait::until("the replicas of before are gone", SOON * 3, || {
        replicas(mesh).len() == 2
    })
    .unwrap();
    let remove = r#"[{"op": "remove", "path": "/data/rotation.json"}]"#;
    let patch = [
        "patch",
        "secret",
        "outrigger-ca",
        "--type=json",
        "--patch",
        remove,
    ];
    mesh.kubectl()
        .run(&[&["--namespace", SYSTEM], &patch[..]].concat())
        .unwrap();
    wait::until("the end of certificates is noted again", SOON, || {
        kept(mesh, "secret", "{{.data}}").contains("rotation.json")
    })
    .unwrap();
}

fn kill_replicas(mesh: &Mesh) {
    for pod in replicas(mesh) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        cluster()
            .signal_in_pod(SYSTEM, name, "control", Signal::SIGKILL)
            .unwrap();
    }
}

/// The pods of a namespace that has those of `served`.
fn pods(namespace: &Namespace) -> Vec<String> {
    let pods = namespace.get(&["pods"]).unwrap();
    let names = pods["items"].as_array().unwrap().iter();
    names
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_root_is_replaced_under_load_and_whoever_has_only_the_old_one_is_refused_in_the_end() {
    let mesh = mesh_alone();
    let _back = Back(&mesh);
    let leaf_ttl = format!("control.leafTtl={}s", LEAF_TTL.as_secs());
    mesh.upgrade(&["proxy.refresh=2s", &leaf_ttl]).unwrap();
    forget_other_certificates(&mesh);
    let namespace = served("rotation", named_server(), &[("client", "node-1")]);
    let load = Load::start(&namespace, "client");
    let pods = pods(&namespace);
    let identity = format!("spiffe://cluster.local/ns/{}/sa/default", namespace.name());
    let signed_by = |root: &Root, leaf: &Root| {
        let leaf = leaf.leaf(&identity);
        pods.iter().all(|pod| match meet(&namespace, pod, &leaf) {
            Met::Welcome(own) => root.has_signed(&own),
            Met::Refused(_) => false,
        })
    };
    let old = root(&mesh);
    assert!(signed_by(&old, &old));

    let begun = ca(&mesh, &["rotate", "begin"]).ok().unwrap();
    assert!(
        begun.contains("two roots are given out, the elder one signs"),
        "{begun}"
    );
    // Whether or not one of them has published the roots already.
    kill_replicas(&mesh);
    too_early(&mesh, "switch", "too early");
    wait::until("both roots are published", SOON * 3, || {
        published(&mesh).matches("BEGIN CERTIFICATE").count() == 2
    })
    .unwrap();
    load.goes_on();
    assert!(
        signed_by(&old, &old),
        "nothing is signed by the new root before it is trusted everywhere"
    );
    step(&mesh, "switch");
    kill_replicas(&mesh);
    too_early(
        &mesh,
        "finish",
        "finish is too early: until then certificates may live that the root has signed that goes; wait until 20",
    );
    wait::until("every pod has a certificate of the new root", SOON * 3, || {
        !pods
            .iter()
            .any(|pod| match meet(&namespace, pod, &old.leaf(&identity)) {
                Met::Welcome(own) => old.has_signed(&own),
                Met::Refused(alert) => panic!("{pod} does not trust the old root any more: {alert:?}"),
            })
    })
    .unwrap();
    load.goes_on();
    load.demand_kept();

    step(&mesh, "finish");
    let new = root(&mesh);
    wait::until("only the new root is published", SOON, || {
        published(&mesh).matches("BEGIN CERTIFICATE").count() == 1
    })
    .unwrap();
    let leaf = old.leaf(&identity);
    wait::until(
        "a certificate of the old root is refused everywhere",
        SOON * 3,
        || {
            // Both roots have one name: it is unknown, or its signature does not fit the key of the new one.
            let refused = |pod: &String| {
                matches!(
                    meet(&namespace, pod, &leaf),
                    Met::Refused(AlertDescription::UnknownCA | AlertDescription::DecryptError)
                )
            };
            pods.iter().all(refused)
        },
    )
    .unwrap();
    assert!(signed_by(&new, &new));
    // The one that was kept has been proved by the old root.
    load.demand_new();
    let status = ca(&mesh, &["status"]).ok().unwrap();
    assert!(status.contains("no rotation is under way"), "{status}");
}
