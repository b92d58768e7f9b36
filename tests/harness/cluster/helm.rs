//! Helm, of the version that the cluster's programs are built with, on that cluster. Waits for no pod: it does not say why one does
//! not come.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Cluster;
use crate::process::Output;
use crate::{chart, wait};

/// To apply a chart's objects on a busy machine.
const APPLIED: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
pub struct Helm<'a> {
    cluster: &'a Cluster,
}

impl<'a> Helm<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    /// Runs it in our namespace to its end, however that is.
    pub fn output(&self, args: &[&str]) -> Result<Output> {
        let cluster = self.cluster;
        let mut command = cluster
            .first()
            .network_command(&cluster.programs.join("helm"))?;
        command
            .arg("--kubeconfig")
            .arg(&cluster.kubeconfig)
            .args(["--namespace", chart::NAMESPACE])
            .args(args);
        Output::of(command, wait::patiently(APPLIED))
    }

    /// What it prints; that it fails is an error.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.output(args)?
            .ok()
            .with_context(|| format!("helm {}", args.join(" ")))
    }
}
