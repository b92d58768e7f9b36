//! What injects in a test: policies with names of their own, for namespaces that have the test's label. And how a test asks.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use harness::cluster::{Kubectl, Namespace};
use harness::mesh::binaries;
use harness::wait::{self, SOON};
use serde_json::{Value, json};

use crate::common::cluster;

pub(super) const IMAGE: &str = "outrigger.example/outrigger:local";
const LABEL: &str = "inject-test";
const INJECT: &str = "outrigger.example/inject";

/// What installed policies say everywhere, and not only in labelled namespaces. A test of these has others in their place: the API server
/// names one of the policies that refuse, which would be any.
pub(super) const USER: &str = "52008";
pub(super) const AGENT: &str = "system:serviceaccount:outrigger-system:outrigger-agent";

/// Deleted on drop.
pub(super) struct Door {
    pub(super) id: String,
    /// What stands in its objects in the place of what is printed.
    others: Vec<(&'static str, String)>,
    objects: Vec<(String, String)>,
}

impl Door {
    /// Of those objects that `keep` says, and active.
    pub(super) fn open(flag: &str, keep: impl Fn(&str) -> bool) -> Self {
        let mut door = Self::prepare();
        let objects = door.objects(flag, keep);
        door.apply(&objects);
        door
    }

    pub(super) fn prepare() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self {
            id: format!("inject-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)),
            others: Vec::new(),
            objects: Vec::new(),
        }
    }

    /// Of policies that say `other` where those of an installation say `printed`, and active.
    pub(super) fn open_about(printed: &'static str, other: &str) -> Self {
        let mut door = Self::prepare();
        door.others.push((printed, other.to_owned()));
        let objects = door.objects("--policies", |_| true);
        door.apply(&objects);
        door
    }

    /// Demands that it was this door's policy of that name that has refused, and what it said.
    pub(super) fn demand_refusal(&self, policy: &str, said: &str, error: &str) {
        let by = format!("ValidatingAdmissionPolicy '{}-{policy}'", self.id);
        assert!(
            error.contains(&by) && error.contains(said),
            "{by}, {said}: {error}"
        );
    }

    /// With the door's own names, for its own namespaces.
    pub(super) fn objects(&self, flag: &str, keep: impl Fn(&str) -> bool) -> Vec<Value> {
        let printed = plugin(&["inject", flag, "--image", IMAGE, "--output", "json"], None).unwrap();
        // Outrigger may be installed as well, for another test.
        let mut printed = printed.to_string().replace(INJECT, &self.label());
        for (word, other) in &self.others {
            assert!(printed.contains(word), "{word} is not printed any more");
            printed = printed.replace(word, other);
        }
        let printed: Value = serde_json::from_str(&printed).unwrap();
        let items = printed["items"].as_array().unwrap();
        let mut objects: Vec<Value> = items
            .iter()
            .filter(|item| keep(item["kind"].as_str().unwrap()))
            .cloned()
            .collect();
        for object in &mut objects {
            self.rename(&mut object["metadata"]["name"]);
            if object["spec"]["policyName"].is_string() {
                self.rename(&mut object["spec"]["policyName"]);
                self.restrict(&mut object["spec"]["matchResources"]);
            }
            for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
                self.restrict(webhook);
            }
        }
        objects
    }

    pub(super) fn apply(&mut self, objects: &[Value]) {
        for object in objects {
            let word = |field: &Value| field.as_str().unwrap().to_owned();
            self.objects
                .push((word(&object["kind"]), word(&object["metadata"]["name"])));
        }
        kubectl().apply(objects).unwrap();
    }

    /// By which this door is asked, as others are by `outrigger.example/inject`.
    pub(super) fn label(&self) -> String {
        format!("{}.{INJECT}", self.id)
    }

    /// A namespace that asks, once it is heard.
    pub(super) fn enabled(&self, labels: &[&str]) -> Namespace<'static> {
        self.enabled_once(labels, |namespace| {
            try_to_create(namespace, &plain()).is_ok_and(|pod| has_sidecar(&pod))
        })
    }

    pub(super) fn enabled_once(
        &self,
        labels: &[&str],
        active: impl Fn(&Namespace) -> bool,
    ) -> Namespace<'static> {
        let asks = format!("{}=enabled", self.label());
        self.namespace(&[&[asks.as_str()], labels].concat(), active)
    }

    pub(super) fn runtime_class(&self) -> String {
        format!("{}-kata-qemu", self.id)
    }

    fn rename(&self, name: &mut Value) {
        *name = format!("{}-{}", self.id, name.as_str().unwrap()).into();
    }

    fn restrict(&self, selectors: &mut Value) {
        selectors["namespaceSelector"]["matchLabels"][LABEL] = self.id.clone().into();
    }

    /// One that the door is for, once the policies are active there: which takes about a second.
    pub(super) fn namespace(
        &self,
        labels: &[&str],
        active: impl Fn(&Namespace) -> bool,
    ) -> Namespace<'static> {
        let namespace = Namespace::create(kubectl(), "inject").unwrap();
        let own = format!("{LABEL}={}", self.id);
        let args = [&["label", "namespace", namespace.name(), &own], labels].concat();
        kubectl().run(&args).unwrap();
        wait::until("the policies are active", SOON, || active(&namespace)).unwrap();
        namespace
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        for (kind, name) in &self.objects {
            let _ = kubectl().output(&["delete", kind, name, "--ignore-not-found", "--wait=false"]);
        }
    }
}

pub(super) fn kubectl() -> Kubectl<'static> {
    cluster().kubectl()
}

/// What our plugin prints for an object, or what it says is wrong.
pub(super) fn plugin(args: &[&str], input: Option<&Value>) -> Result<Value, String> {
    let mut command = Command::new(binaries::path("kubectl-outrigger").unwrap());
    command.args(args).env_remove("OUTRIGGER_PROFILE");
    let output = fed(command, input);
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The object with sidecars, as a file's would be.
pub(super) fn by_file(object: &Value) -> Result<Value, String> {
    let args = ["inject", "--file", "-", "--image", IMAGE, "--output", "json"];
    plugin(&args, Some(object)).map(|list| list["items"][0].clone())
}

/// What the API server makes of an object without keeping it, or why it does not.
pub(super) fn try_to_create(namespace: &Namespace, object: &Value) -> Result<Value, String> {
    try_to_create_as(namespace, object, &[])
}

pub(super) fn try_to_create_as(
    namespace: &Namespace,
    object: &Value,
    flags: &[&str],
) -> Result<Value, String> {
    let mut command = kubectl().command().unwrap();
    command.args([
        "--namespace",
        namespace.name(),
        "create",
        "--dry-run=server",
        "--output=json",
        "--filename=-",
    ]);
    let output = fed(
        {
            command.args(flags);
            command
        },
        Some(object),
    );
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn fed(mut command: Command, input: Option<&Value>) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    if let Some(input) = input {
        // One that refuses its arguments reads nothing.
        let _ = stdin.write_all(input.to_string().as_bytes());
    }
    drop(stdin);
    child.wait_with_output().unwrap()
}

pub(super) fn has_sidecar(pod: &Value) -> bool {
    pod["spec"]["initContainers"][0]["name"] == "outrigger-proxy"
}

/// Without what differs from one answer of the server to the next: names by chance, times, and the place of the volume that the
/// server adds by itself.
pub(super) fn comparable(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for field in ["uid", "creationTimestamp", "generation", "managedFields"] {
        pod["metadata"].as_object_mut().unwrap().remove(field);
    }
    // What the server has added, and when: before the sidecar came or after it.
    pod["metadata"]["annotations"]
        .as_object_mut()
        .unwrap()
        .remove("kubernetes.io/limit-ranger");
    const BY_CHANCE: &str = "kube-api-access";
    let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    let names = volumes.iter().filter_map(|volume| volume["name"].as_str());
    let text = names
        .filter(|name| name.starts_with(BY_CHANCE))
        .fold(pod.to_string(), |text, name| text.replace(name, BY_CHANCE));
    let mut pod: Value = serde_json::from_str(&text).unwrap();
    if let Some(volumes) = pod["spec"]["volumes"].as_array_mut() {
        volumes.sort_by_key(|volume| volume["name"].to_string());
    }
    pod
}

/// Name, pod, and the case as it is written; with a runtime class of the door's own.
pub(super) fn cases(door: &Door) -> Vec<(String, Value, Value)> {
    let text = include_str!("cases.json")
        .replace("a-kata-qemu", &door.runtime_class())
        .replace(INJECT, &door.label());
    let cases: Value = serde_json::from_str(&text).unwrap();
    let cases = cases.as_array().unwrap().iter();
    cases
        .map(|case| {
            let mut pod = case["pod"].clone();
            let name = case["name"].as_str().unwrap().to_owned();
            pod["apiVersion"] = "v1".into();
            pod["kind"] = "Pod".into();
            pod["metadata"]["name"] = name.clone().into();
            (name, pod, case.clone())
        })
        .collect()
}

pub(super) fn plain() -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "plain" },
        "spec": { "containers": [{ "name": "main", "image": IMAGE, "imagePullPolicy": "Never" }] } })
}
