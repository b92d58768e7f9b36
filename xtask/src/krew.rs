//! `cargo xtask krew`: the archive of the kubectl plugin for this machine's architecture, and the manifest by which krew installs it.
//! Publishes nothing.

mod manifest;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::cluster::images::digest_of;
use crate::cluster::programs::quietly;
use crate::image::{BUILT, architecture};
use crate::{setup, workspace};

const PROGRAM: &str = "kubectl-outrigger";

/// krew wants the licence beside the program.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

#[derive(clap::Args)]
pub(crate) struct Opts {}

pub(crate) fn run(_: Opts) -> Result<ExitCode> {
    setup::ensure()?;
    let dir = workspace::target_dir().join("krew");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let archive = pack(&dir)?;
    println!("{}", archive.display());

    let source = workspace::root().join("deploy/krew/outrigger.yaml");
    let text = fs::read_to_string(&source).with_context(|| format!("read {}", source.display()))?;
    let filled = manifest::fill(&text, |name| {
        let archive = dir.join(name);
        archive.exists().then(|| digest_of(&archive)).transpose()
    })?;
    let problems = manifest::problems(&filled.text);
    ensure!(
        problems.is_empty(),
        "krew would refuse it: {}",
        problems.join("; ")
    );
    let path = dir.join("outrigger.yaml");
    fs::write(&path, filled.text).with_context(|| format!("write {}", path.display()))?;
    println!("{}", path.display());
    for name in filled.missing {
        println!(
            "left out: {name}; run this on a machine of that architecture, and again here with its archive in {}",
            dir.display()
        );
    }
    println!(
        "\nTry it: kubectl krew install --manifest {} --archive {}",
        path.display(),
        archive.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// The same bytes from the same program, whoever packs it and when.
fn pack(dir: &Path) -> Result<PathBuf> {
    let built = match std::env::var_os(BUILT) {
        Some(dir) => dir.into(),
        None => workspace::build_release(&["outrigger"])?,
    };
    let work = dir.join("work");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
    quietly(
        Command::new("strip")
            .args(["--strip-all", "-o"])
            .arg(work.join(PROGRAM))
            .arg(built.join(PROGRAM)),
    )?;
    for licence in LICENCES {
        let from = workspace::root().join(licence);
        fs::copy(&from, work.join(licence)).with_context(|| format!("copy {}", from.display()))?;
    }
    let archive = dir.join(format!("{PROGRAM}-linux-{}.tar.gz", architecture()));
    quietly(
        Command::new("tar")
            .args([
                "--sort=name",
                "--mtime=@0",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
            ])
            .args(["--mode=go=rX,u+rw,a-s", "--use-compress-program=gzip -9n", "-cf"])
            .arg(&archive)
            .arg("-C")
            .arg(&work)
            .args(LICENCES)
            .arg(PROGRAM),
    )?;
    fs::remove_dir_all(&work)?;
    Ok(archive)
}
