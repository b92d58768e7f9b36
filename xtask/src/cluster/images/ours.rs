//! Our own image: the program and the kubectl plugin with the libraries that they name, nothing else. No shell, no root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::layout::{Image, digest_of};
use crate::cluster::programs::quietly;
use crate::workspace;

const NAME: &str = "outrigger.example/outrigger:local";

const PROGRAMS: [&str; 2] = ["outrigger", "kubectl-outrigger"];

/// Where other builds than the release lie, for one who tries something out.
const BUILT: &str = "OUTRIGGER_BIN_DIR";

pub(super) fn build(dir: &Path) -> Result<PathBuf> {
    let built = match std::env::var_os(BUILT) {
        Some(dir) => dir.into(),
        None => workspace::build_release(&["outrigger"])?,
    };
    let mut files: Vec<PathBuf> = PROGRAMS.map(|name| built.join(name)).into();
    let libraries = libraries(&files)?;
    files.extend(libraries);
    let digests = files
        .iter()
        .map(|file| digest_of(file))
        .collect::<Result<Vec<_>>>()?;
    let image = Image {
        name: NAME,
        user: "65532:65532",
        entrypoint: &["/usr/bin/outrigger"],
    };
    image.build(dir, &format!("stripped {}", digests.join(" ")), |root| {
        for file in &files {
            let place = if file.starts_with(&built) {
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
        }
        Ok(())
    })
}

/// The dynamic linker and what it would load, by the names that the programs know them by.
fn libraries(programs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for program in programs {
        let listed = workspace::ask(Command::new("ldd").arg(program))
            .with_context(|| format!("ldd {} fails", program.display()))?;
        for word in listed.split_whitespace().filter(|word| word.starts_with('/')) {
            let path = PathBuf::from(word);
            if !found.contains(&path) {
                found.push(path);
            }
        }
    }
    Ok(found)
}
