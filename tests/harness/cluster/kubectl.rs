//! The cluster's own kubectl, for tests: objects as JSON in, facts as JSON out. Retries nothing by itself.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Cluster;
use crate::process::Output;
use crate::wait;

/// For one answer of the API server on a busy machine.
const ANSWER: Duration = Duration::from_secs(60);

/// For what takes containers to start: images are there already.
const STARTED: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
pub struct Kubectl<'a> {
    cluster: &'a Cluster,
}

impl<'a> Kubectl<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    /// The command line, without arguments. It sees the files of this machine.
    pub fn command(&self) -> Result<Command> {
        let cluster = self.cluster;
        let mut command = cluster
            .first()
            .network_command(&cluster.programs.join("kubectl"))?;
        command.arg("--kubeconfig").arg(&cluster.kubeconfig);
        Ok(command)
    }

    /// Runs it to its end, however that is.
    pub fn output(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.command()?;
        command.args(args);
        Output::of(command, ANSWER)
    }

    /// What it prints; that it fails is an error.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.output(args)?
            .ok()
            .with_context(|| format!("kubectl {}", args.join(" ")))
    }

    /// One object, or a list of them.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[&["get", "--output=json"], args].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {} is no JSON", args.join(" ")))
    }

    /// Makes objects, or changes them to this.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        self.take(&["apply"], objects).map(drop)
    }

    /// Makes objects, and gives them as the API server answers: a review is one that is answered and not kept.
    pub fn create(&self, objects: &[Value]) -> Result<Vec<Value>> {
        let text = self.take(&["create", "--output=json"], objects)?;
        let answers = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let mut all = Vec::new();
        for answer in answers {
            let answer = answer.context("what kubectl create prints is no JSON")?;
            match answer["items"].as_array() {
                Some(items) => all.extend(items.iter().cloned()),
                None => all.push(answer),
            }
        }
        Ok(all)
    }

    /// What the API server would make of an object, which it does not keep.
    pub fn would_create(&self, object: &Value) -> Result<Value> {
        let args = ["create", "--dry-run=server", "--output=json"];
        let text = self.take(&args, std::slice::from_ref(object))?;
        let made: Value = serde_json::from_str(&text).context("what kubectl create prints is no JSON")?;
        Ok(match made["items"].get(0) {
            Some(only) => only.clone(),
            None => made,
        })
    }

    /// What a command prints that is given objects.
    fn take(&self, args: &[&str], objects: &[Value]) -> Result<String> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let mut child = self
            .command()?
            .args(args)
            .arg("--filename=-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start kubectl")?;
        let mut input = child.stdin.take().context("stdin of kubectl")?;
        input.write_all(list.to_string().as_bytes())?;
        drop(input);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "kubectl {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        String::from_utf8(output.stdout).context("what kubectl prints is no UTF-8")
    }

    /// Runs a program in a pod.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<Output> {
        let args = ["--namespace", namespace, "exec", pod, "--"];
        self.output(&[&args, command].concat())
    }

    /// Waits for a condition of objects that exist, as `kubectl wait --for` takes it.
    pub fn wait(&self, namespace: &str, what: &str, condition: &str) -> Result<()> {
        let limit = wait::patiently(STARTED);
        let mut command = self.command()?;
        command
            .args(["--namespace", namespace, "wait", what])
            .arg(format!("--for={condition}"))
            .arg(format!("--timeout={}s", limit.as_secs()));
        let waited = Output::of(command, limit + ANSWER)?.ok();
        waited.map(drop).with_context(|| {
            let about = ["--namespace", namespace, "describe", what];
            let described = self
                .output(&about)
                .map(|output| output.stdout)
                .unwrap_or_default();
            format!("{what} does not come to {condition}:\n{described}")
        })
    }
}

/// A namespace of the cluster, deleted with all that is in it on drop.
#[derive(Debug)]
pub struct Namespace<'a> {
    name: String,
    kubectl: Kubectl<'a>,
}

impl<'a> Namespace<'a> {
    pub fn create(kubectl: Kubectl<'a>, stem: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{stem}-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        kubectl.run(&["create", "namespace", &name])?;
        let made = Self { name, kubectl };
        // A pod without a service account is refused, and the account is made by a controller.
        wait::until("the service account of a new namespace", wait::SOON, || {
            kubectl
                .get(&["--namespace", made.name(), "serviceaccount", "default"])
                .is_ok()
        })?;
        Ok(made)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kubectl(&self) -> Kubectl<'a> {
        self.kubectl
    }

    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let mut objects = objects.to_vec();
        for object in &mut objects {
            object["metadata"]["namespace"] = self.name.clone().into();
        }
        self.kubectl.apply(&objects)
    }

    pub fn get(&self, args: &[&str]) -> Result<Value> {
        self.kubectl.get(&[&["--namespace", &self.name], args].concat())
    }

    pub fn exec(&self, pod: &str, command: &[&str]) -> Result<Output> {
        self.kubectl.exec(&self.name, pod, command)
    }

    pub fn wait(&self, what: &str, condition: &str) -> Result<()> {
        self.kubectl.wait(&self.name, what, condition)
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let _ = self
            .kubectl
            .output(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}
