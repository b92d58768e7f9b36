//! `kubectl outrigger` against the cluster, as an administrator or as somebody with fewer rights. Retries nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Cluster;
use crate::mesh::binaries;
use crate::process::Output;

/// For one run on a busy machine.
const ANSWER: Duration = Duration::from_secs(60);

/// Somebody who uses it.
#[derive(Debug)]
pub struct Plugin<'a> {
    cluster: &'a Cluster,
    kubeconfig: PathBuf,
    /// Whether the kubeconfig goes with this.
    is_own: bool,
}

impl<'a> Plugin<'a> {
    /// With the certificate of an administrator.
    pub fn of_admin(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            kubeconfig: cluster.kubeconfig.clone(),
            is_own: false,
        }
    }

    /// With a token of a service account, and its namespace for the default one.
    pub fn of_account(cluster: &'a Cluster, namespace: &str, account: &str) -> Result<Self> {
        let kubectl = cluster.kubectl();
        let token = kubectl.run(&["--namespace", namespace, "create", "token", account])?;
        let admin = kubectl.run(&["config", "view", "--raw", "--output=json"])?;
        let mut config: Value = serde_json::from_str(&admin).context("the kubeconfig is no JSON")?;
        config["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
        config["contexts"][0]["context"]["namespace"] = namespace.into();
        let kubeconfig =
            std::env::temp_dir().join(format!("outrigger-{}-{namespace}-{account}", std::process::id()));
        fs::write(&kubeconfig, config.to_string()).context("write a kubeconfig")?;
        Ok(Self {
            cluster,
            kubeconfig,
            is_own: true,
        })
    }

    /// The command line, without arguments.
    pub fn command(&self) -> Result<Command> {
        let program = binaries::path("kubectl-outrigger")?;
        let mut command = self.cluster.first().network_command(&program)?;
        command.env("KUBECONFIG", &self.kubeconfig).env_remove("COLUMNS");
        Ok(command)
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs it to its end, however that is.
    pub fn output(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.command()?;
        command.args(args);
        Output::of(command, ANSWER)
    }

    /// What it prints; that it fails is an error.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let done = self.output(args)?.ok();
        done.with_context(|| format!("kubectl outrigger {}", args.join(" ")))
    }

    /// What it prints as JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[args, &["--output=json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("kubectl outrigger {} is no JSON", args.join(" ")))
    }

    /// Why it fails.
    pub fn refused(&self, args: &[&str]) -> Result<String> {
        let output = self.output(args)?;
        anyhow::ensure!(!output.status.success(), "it did not fail: {}", output.stdout);
        anyhow::ensure!(output.stdout.is_empty(), "it printed data: {}", output.stdout);
        Ok(output.stderr)
    }
}

impl Drop for Plugin<'_> {
    fn drop(&mut self) {
        if self.is_own {
            let _ = fs::remove_file(&self.kubeconfig);
        }
    }
}
