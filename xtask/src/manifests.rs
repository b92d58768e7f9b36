//! `cargo xtask manifests`: writes what Helm makes of our chart, for those who have no Helm and for reviewers. Applies nothing.
//!
//! That the files are those of the chart as it is now is a test of the cluster: `chart::the_manifests_are_what_the_chart_renders`.

mod injection;
mod values;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use harness::chart::{self, RENDERINGS};

use crate::cluster::programs;

#[derive(clap::Args)]
pub(crate) struct Opts {}

pub(crate) fn run(_: Opts) -> Result<ExitCode> {
    values::check(&chart::directory())?;
    injection::write(&chart::directory().join("templates"))?;
    let helm = programs::build_helm()?;
    for rendering in RENDERINGS {
        let path = rendering.path();
        let text = rendering.render(&helm)?;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        println!("{}", rendering.file);
    }
    Ok(ExitCode::SUCCESS)
}
