//! The Helm chart of this checkout, and the files that it is rendered to. Asks no cluster, and compares nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

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

impl Rendering {
    pub fn path(&self) -> PathBuf {
        root().join(self.file)
    }

    /// What the file has to hold.
    pub fn render(&self, helm: &Path) -> Result<String> {
        let mut command = Command::new(helm);
        command
            .args(["template", NAME])
            .arg(directory())
            .args(["--namespace", NAMESPACE]);
        if let Some(values) = self.values {
            command.arg("--values").arg(root().join(values));
        }
        let output = command.output().context("start helm")?;
        ensure!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let text = String::from_utf8(output.stdout).context("what helm renders is no UTF-8")?;
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
