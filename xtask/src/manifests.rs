//! `cargo xtask manifests`: writes what Helm makes of our chart, for those who have no Helm and for reviewers, and the rules of Prometheus
//! as an object. Applies nothing.
//!
//! That the files are those of the chart as it is now is a test of the cluster: `chart::the_manifests_are_what_the_chart_renders`.

mod injection;
mod values;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use harness::chart::{self, RENDERINGS, RULES, RULES_OBJECT};

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
    let rules = fs::read_to_string(chart::root().join(RULES)).with_context(|| format!("read {RULES}"))?;
    let object = chart::rules_object(&rules).with_context(|| format!("{RULES} has no line `groups:`"))?;
    fs::write(chart::root().join(RULES_OBJECT), object).with_context(|| format!("write {RULES_OBJECT}"))?;
    println!("{RULES_OBJECT}");
    Ok(ExitCode::SUCCESS)
}
