//! `cargo xtask image`: the files of our image, as `deploy/images/Containerfile` takes them: the program, which is the kubectl plugin too
//! where it is called so, and the libraries that it names, nothing else. Builds no image, and asks no registry.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cluster::images::digest_of;
use crate::cluster::programs::quietly;
use crate::workspace::{PLUGIN, PROGRAM};
use crate::{setup, workspace};

/// Where other builds than the release lie, for one who tries something out.
pub(crate) const BUILT: &str = "OUTRIGGER_BIN_DIR";

#[derive(clap::Args)]
pub(crate) struct Opts {}

pub(crate) fn run(_: Opts) -> Result<ExitCode> {
    setup::ensure()?;
    let staged = stage()?;
    let context = staged.root.parent().context("the root has no parent")?.display();
    println!("{}\n", staged.root.display());
    println!("Build the image for this architecture with any of:\n");
    for program in ["buildah", "podman", "docker"] {
        println!(
            "  {program} build --platform linux/{} --tag outrigger --file deploy/images/Containerfile {context}",
            architecture()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The root directory of the image for this machine's architecture.
pub(crate) struct Staged {
    pub(crate) root: PathBuf,
    /// Of all that it is made from.
    pub(crate) digest: String,
}

/// Makes it, unless what is there was made from the same.
pub(crate) fn stage() -> Result<Staged> {
    let built = match std::env::var_os(BUILT) {
        Some(dir) => dir.into(),
        None => workspace::build_release(&[PROGRAM])?,
    };
    let program = built.join(PROGRAM);
    let mut files = libraries(&program)?;
    files.push(program);
    let digests = files
        .iter()
        .map(|file| digest_of(file))
        .collect::<Result<Vec<_>>>()?;
    let digest = format!("stripped, one program {}", digests.join(" "));

    let context = workspace::target_dir().join("image");
    let name = format!("linux-{}", architecture());
    let root = context.join(&name);
    let mark = context.join(format!("{name}.made-from"));
    if !(root.exists() && fs::read_to_string(&mark).is_ok_and(|found| found == digest)) {
        let new = context.join(format!("{name}.new"));
        let _ = fs::remove_dir_all(&new);
        fill(&new, &built, &files)?;
        let _ = fs::remove_dir_all(&root);
        fs::rename(&new, &root).with_context(|| format!("write {}", root.display()))?;
        fs::write(&mark, &digest)?;
    }
    Ok(Staged { root, digest })
}

/// As builders of images call it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn fill(root: &Path, built: &Path, files: &[PathBuf]) -> Result<()> {
    for file in files {
        let place = if file.starts_with(built) {
            root.join("usr/bin").join(file.file_name().unwrap_or_default())
        } else {
            root.join(file.strip_prefix("/").unwrap_or(file))
        };
        fs::create_dir_all(place.parent().unwrap_or(root))?;
        // Line tables and symbols are for who debugs a build; they are most of the size.
        quietly(
            Command::new("strip")
                .args(["--strip-all", "-o"])
                .arg(&place)
                .arg(file),
        )?;
        // Whoever built them has a umask of their own.
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
    }
    let plugin = root.join("usr/bin").join(PLUGIN);
    symlink(PROGRAM, &plugin).with_context(|| format!("link {}", plugin.display()))
}

/// The dynamic linker and what it would load, by the names that the program knows them by.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = workspace::ask(Command::new("ldd").arg(program))
        .with_context(|| format!("ldd {} fails", program.display()))?;
    let paths = listed.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}
