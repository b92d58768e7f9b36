//! Outrigger as it is installed in the cluster: by its chart, once for all tests. What the agents of the nodes say of connections.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Cluster, Kubectl};
use crate::process::Output;
use crate::{cgroup, chart, wait};

/// Where it is installed, and the name of the release.
pub const SYSTEM: &str = "outrigger-system";
const RELEASE: &str = "outrigger";

/// For an installation or its end, images being there.
const SETTLED: Duration = Duration::from_secs(180);

/// An installation. It stays when this is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Mesh<'a> {
    cluster: &'a Cluster,
}

impl<'a> Mesh<'a> {
    /// Installs it, or brings what is there to these values.
    pub fn install(cluster: &'a Cluster) -> Result<Self> {
        let mesh = Self { cluster };
        mesh.upgrade(&[])?;
        Ok(mesh)
    }

    /// Brings the installation to the values of the tests and these, each `path=value`.
    pub fn upgrade(&self, values: &[&str]) -> Result<()> {
        let mut all = values_of_tests()?;
        all.extend(values.iter().map(|value| (*value).to_owned()));
        self.upgrade_by(&chart::directory(), &all)
    }

    /// Brings it to another chart than that of this checkout.
    pub fn upgrade_to(&self, chart: &Path) -> Result<()> {
        self.upgrade_by(chart, &values_of_any_chart()?)
    }

    fn upgrade_by(&self, chart: &Path, values: &[String]) -> Result<()> {
        let mut helm = self.helm()?;
        helm.args(["upgrade", "--install", RELEASE])
            .arg(chart)
            .args(["--namespace", SYSTEM, "--create-namespace", "--wait"])
            .arg(format!("--timeout={}s", wait::patiently(SETTLED).as_secs()));
        for value in values {
            helm.args(["--set", value]);
        }
        let done = Output::of(helm, wait::patiently(SETTLED) * 2)?.ok();
        done.map(drop).with_context(|| self.described())?;
        self.injects()
    }

    /// Waits until the API server injects by the policy that is installed: it looks for changed ones once a second, and a pod
    /// that is made before is another one than a test expects. A webhook's profile is that of the control plane that helm
    /// has waited for.
    fn injects(&self) -> Result<()> {
        let policy = [
            "mutatingadmissionpolicy",
            "outrigger-inject",
            "--ignore-not-found",
        ];
        let policy = self
            .kubectl()
            .run(&[&["get", "--output=json"], &policy[..]].concat())?;
        if policy.is_empty() {
            return Ok(());
        }
        let policy: Value = serde_json::from_str(&policy).context("the policy is no JSON")?;
        let mut mutations = policy["spec"]["mutations"].as_array().into_iter().flatten();
        let profile = mutations
            .find_map(|mutation| {
                let patch = mutation["jsonPatch"]["expression"].as_str()?;
                let (_, rest) = patch.split_once(r#"\"profile\":\""#)?;
                rest.split_once('\\').map(|(digest, _)| digest)
            })
            .context("the policy names no profile")?;
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": "tried", "namespace": "default", "labels": enabled() },
            "spec": { "containers": [{ "name": "tried", "image": "tried" }] },
        });
        wait::until("pods are injected by the policy there is", wait::SOON, || {
            self.kubectl().would_create(&pod).is_ok_and(|made| {
                let status = made["metadata"]["annotations"]["outrigger.example/status"].as_str();
                status.is_some_and(|status| status.contains(profile))
            })
        })
    }

    /// As a user does it: by the chart of this checkout, and with the values that there are. An error is Helm's own words.
    pub fn upgrade_with(&self, flags: &[&str]) -> Result<()> {
        let chart = chart::directory().display().to_string();
        let limit = format!("--timeout={}s", wait::patiently(SETTLED).as_secs());
        let args = ["upgrade", RELEASE, &chart, "--wait", &limit];
        self.release(&[&args, flags].concat())?.ok()?;
        self.injects()
    }

    /// Brings it back to an earlier revision.
    pub fn rollback(&self, revision: u32) -> Result<()> {
        let revision = revision.to_string();
        let limit = format!("--timeout={}s", wait::patiently(SETTLED).as_secs());
        let rolled = self.release(&["rollback", RELEASE, &revision, "--wait", &limit])?;
        rolled.ok().map(drop).with_context(|| self.described())?;
        self.injects()
    }

    /// `helm test`, which ends after the limit at the latest.
    pub fn test(&self, limit: Duration) -> Result<Output> {
        let limit = format!("--timeout={}s", wait::patiently(limit).as_secs());
        self.release(&["test", RELEASE, "--logs", &limit])
    }

    /// Of the release there is: its revision, and the name of its chart with its version.
    pub fn revision(&self) -> Result<(u32, String)> {
        let said = self.release(&["list", "--output=json"])?.ok()?;
        let list: Value = serde_json::from_str(&said).context("helm list is no JSON")?;
        let release = &list[0];
        let revision = release["revision"]
            .as_str()
            .and_then(|number| number.parse().ok());
        let chart = release["chart"].as_str().context("no release")?;
        Ok((
            revision.context("a release without a revision")?,
            chart.to_owned(),
        ))
    }

    /// helm in our namespace, to its end.
    fn release(&self, args: &[&str]) -> Result<Output> {
        let mut helm = self.helm()?;
        helm.args(["--namespace", SYSTEM]).args(args);
        Output::of(helm, wait::patiently(SETTLED) * 2)
    }

    /// Takes it away.
    pub fn uninstall(&self) -> Result<()> {
        let mut helm = self.helm()?;
        helm.args(["uninstall", RELEASE, "--namespace", SYSTEM, "--wait"])
            .arg(format!("--timeout={}s", wait::patiently(SETTLED).as_secs()));
        Output::of(helm, wait::patiently(SETTLED) * 2)?.ok()?;
        Ok(())
    }

    /// helm, which sees the files of this machine.
    fn helm(&self) -> Result<Command> {
        let mut helm = self
            .cluster
            .first()
            .network_command(&self.cluster.programs.join("helm"))?;
        helm.arg("--kubeconfig").arg(&self.cluster.kubeconfig);
        Ok(helm)
    }

    pub fn kubectl(&self) -> Kubectl<'a> {
        self.cluster.kubectl()
    }

    /// The pod of the agent of a node.
    pub fn agent(&self, node: &str) -> Result<String> {
        let field = format!("--field-selector=spec.nodeName={node}");
        let label = "--selector=app.kubernetes.io/component=agent";
        let pods = self
            .kubectl()
            .get(&["--namespace", SYSTEM, "pods", label, &field])?;
        let pods = pods["items"].as_array().context("pods")?;
        let serves = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let Some(pod) = pods.iter().find(serves) else {
            bail!("{node} has no agent");
        };
        Ok(pod["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    }

    /// What the agent of a node knows of connections, by the plugin in its own image.
    pub fn flows(&self, node: &str) -> Result<Vec<Value>> {
        let list = self.asked(node, "flows")?;
        let kinds = ["open", "closed"].iter().filter_map(|kind| list[kind].as_array());
        Ok(kinds.flatten().cloned().collect())
    }

    /// The same, added up by who talks to whom.
    pub fn edges(&self, node: &str) -> Result<Value> {
        self.asked(node, "edges")
    }

    fn asked(&self, node: &str, verb: &str) -> Result<Value> {
        let command = [
            "kubectl-outrigger",
            verb,
            "--unix",
            "/run/outrigger/agent-admin.sock",
            "--output=json",
        ];
        let said = self.kubectl().exec(SYSTEM, &self.agent(node)?, &command)?.ok()?;
        serde_json::from_str(&said).with_context(|| format!("{verb} are no JSON"))
    }

    /// For an error: what is there, and what it said last.
    fn described(&self) -> String {
        let mut text = String::new();
        for args in [
            ["get", "all", "--output=wide", "--namespace"],
            ["describe", "pods", "--show-events", "--namespace"],
            [
                "logs",
                "--selector=app.kubernetes.io/name=outrigger",
                "--tail=40",
                "--namespace",
            ],
        ] {
            let args = [&args[..], &[SYSTEM]].concat();
            if let Ok(said) = self.kubectl().output(&args) {
                text.push_str(&format!(
                    "--- kubectl {}\n{}{}\n",
                    args.join(" "),
                    said.stdout,
                    said.stderr
                ));
            }
        }
        text
    }
}

fn values_of_tests() -> Result<Vec<String>> {
    let mut values = values_of_any_chart()?;
    // Metrics of agents, as a Prometheus asks for them.
    values.push("agent.status=0.0.0.0:15021".into());
    Ok(values)
}

/// What every version of the chart takes: our image of this machine, and where its cgroups are.
fn values_of_any_chart() -> Result<Vec<String>> {
    let cgroups = cgroup::mount()?;
    Ok(vec![
        "image.repository=outrigger.example/outrigger".into(),
        "image.tag=local".into(),
        "image.pullPolicy=Never".into(),
        format!("agent.hostPaths.cgroup={}", cgroups.display()),
    ])
}

/// The label by which a namespace is in the mesh.
pub fn enabled() -> Value {
    json!({ "outrigger.example/inject": "enabled" })
}
