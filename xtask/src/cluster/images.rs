//! The images that the cluster's pods start from, made here: no registry is asked. Pushes none anywhere.

mod debian;
mod layout;
mod ours;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use self::layout::Image;
pub(crate) use self::layout::digest_of;
use super::programs::{Programs, quietly};
use crate::workspace::{self, announce};

pub(super) const PAUSE: &str = "outrigger.example/pause:local";
pub(super) const COREDNS: &str = "outrigger.example/coredns:local";
/// For tests that need a server of gRPC's health service.
const ETCD: &str = "outrigger.example/test/etcd:local";

/// OCI layouts, one archive each.
pub(super) struct Images {
    pub(super) archives: Vec<PathBuf>,
}

/// Makes those that are not there, or that what they are made from has changed since.
pub(super) fn build(programs: &Programs) -> Result<Images> {
    let dir = workspace::target_dir().join(super::CACHE).join("images");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let mut archives = vec![
        pause(&dir)?,
        of_program(&dir, programs, "coredns", COREDNS)?,
        of_program(&dir, programs, "etcd", ETCD)?,
        ours::build(&dir)?,
    ];
    archives.extend(debian::build(&dir)?);
    Ok(Images { archives })
}

/// Holds a pod's namespaces.
fn pause(dir: &Path) -> Result<PathBuf> {
    let source = include_str!("images/pause.c");
    let image = Image {
        name: PAUSE,
        user: "65535:65535",
        entrypoint: &["/pause"],
        labels: &[],
    };
    image.build(dir, source, |root| {
        let file = dir.join("pause.c");
        fs::write(&file, source)?;
        quietly(
            Command::new("cc")
                .args(["-static", "-Os", "-s", "-o"])
                .arg(root.join("pause"))
                .arg(&file),
        )?;
        Ok(fs::remove_file(&file)?)
    })
}

/// A program of the cluster's and nothing else.
fn of_program(dir: &Path, programs: &Programs, program: &str, name: &'static str) -> Result<PathBuf> {
    let path = programs.path(program);
    let entrypoint = format!("/{program}");
    let image = Image {
        name,
        user: "0:0",
        entrypoint: &[&entrypoint],
        labels: &[],
    };
    image.build(dir, &digest_of(&path)?, |root| {
        Ok(fs::copy(&path, root.join(program)).map(drop)?)
    })
}

fn say(name: &str, archive: &Path) -> Result<()> {
    let size = archive.metadata()?.len();
    announce(&format!(
        "image {name}: {}.{} MB",
        size / 1_000_000,
        size / 100_000 % 10
    ));
    Ok(())
}
