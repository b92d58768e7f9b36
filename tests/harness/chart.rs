//! The Helm chart of this checkout, and the files that it is rendered to. Asks no cluster, and compares nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::Output;
use crate::wait;

pub const NAMESPACE: &str = "outrigger-system";

/// Of the release.
pub const NAME: &str = "outrigger";

/// A file in the repository that holds what Helm makes of the chart.
#[derive(Clone, Copy, Debug)]
pub struct Rendering {
    pub file: &'static str,
    /// What is set; nothing: the defaults.
    pub values: Option<&'static str>,
}

pub const RENDERINGS: [Rendering; 2] = [
    Rendering {
        file: "deploy/manifests/outrigger.yaml",
        values: None,
    },
    // Everything that the defaults leave out.
    Rendering {
        file: "deploy/golden/everything.yaml",
        values: Some("deploy/golden/everything.values.yaml"),
    },
];

/// Labels of the tool that installs: a file is applied by another one.
const HELMS: [&str; 2] = ["app.kubernetes.io/managed-by:", "helm.sh/chart:"];

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub fn directory() -> PathBuf {
    root().join("deploy/charts/outrigger")
}

/// The chart's own version.
pub fn version() -> Result<String> {
    let path = directory().join("Chart.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("version: "));
    lines
        .next()
        .map(str::to_owned)
        .context("Chart.yaml says no version")
}

impl Rendering {
    pub fn path(&self) -> PathBuf {
        root().join(self.file)
    }

    /// What the file has to hold.
    pub fn render(&self, helm: &Path) -> Result<String> {
        let chart = directory().display().to_string();
        let values = self
            .values
            .map(|values| root().join(values).display().to_string());
        let mut args = vec!["template", NAME, &chart];
        if let Some(values) = &values {
            args.extend(["--values", values]);
        } else {
            // Who applies a file runs no `helm test`.
            args.push("--skip-tests");
        }
        let text = run_helm(helm, &args)?.ok()?;
        let mut rendered = String::from("# Made by `cargo xtask manifests` from deploy/charts/outrigger");
        if let Some(values) = self.values {
            rendered += " with ";
            rendered += values;
        }
        rendered += ".\n";
        for line in text.lines() {
            if HELMS.iter().any(|label| line.trim_start().starts_with(label)) {
                continue;
            }
            rendered += line.trim_end();
            rendered.push('\n');
        }
        Ok(rendered)
    }
}

/// Beside the chart: what Prometheus is given as a file, and its operator as an object.
pub const RULES: &str = "deploy/prometheus/rules.yaml";
pub const RULES_OBJECT: &str = "deploy/prometheus/prometheusrule.yaml";

/// The object for the operator, of the file of rules.
pub fn rules_object(rules: &str) -> Option<String> {
    let (_, groups) = rules.split_once("\ngroups:\n")?;
    let mut object = format!(
        "# Made by `cargo xtask manifests` from {RULES}, for the Prometheus operator. Its Prometheus selects it by labels: add those of yours.\n\
         apiVersion: monitoring.coreos.com/v1\n\
         kind: PrometheusRule\n\
         metadata:\n  name: outrigger\n  namespace: {NAMESPACE}\n  labels:\n    app.kubernetes.io/name: outrigger\n    \
         app.kubernetes.io/part-of: outrigger\n\
         spec:\n  groups:\n"
    );
    for line in groups.lines() {
        let indent = if line.is_empty() { "" } else { "  " };
        object.extend([indent, line, "\n"]);
    }
    Some(object)
}

/// Helm on its own, for what needs no cluster; in our namespace unless the arguments name another one.
pub fn run_helm(helm: &Path, args: &[&str]) -> Result<Output> {
    let mut command = Command::new(helm);
    command.args(["--namespace", NAMESPACE]).args(args);
    Output::of(command, wait::patiently(wait::SOON * 3))
}
