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

/// What `deploy/images/Containerfile` labels the image with: names and values.
pub(crate) fn labels() -> Result<Vec<(String, String)>> {
    let path = workspace::root().join("deploy/images/Containerfile");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    labels_in(&text).with_context(|| format!("{}: LABEL is not as it is read here", path.display()))
}

/// One instruction, a label a line: `LABEL name="value" \`.
fn labels_in(text: &str) -> Option<Vec<(String, String)>> {
    let (_, rest) = text.split_once("\nLABEL ")?;
    let mut labels = Vec::new();
    for line in rest.lines() {
        let one = line.trim().trim_end_matches('\\').trim_end();
        let (name, value) = one.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        labels.push((name.to_owned(), value.to_owned()));
        if !line.ends_with('\\') {
            return Some(labels);
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_a_builder_of_images_reads_them() {
        let text = "FROM scratch\nLABEL a.title=\"One\" \\\n      a.licenses=\"(A OR B) AND C=D\"\nUSER 1\n";
        let read = labels_in(text).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            read,
            [pair("a.title", "One"), pair("a.licenses", "(A OR B) AND C=D")]
        );
        for unread in ["FROM scratch\n", "\nLABEL a=b\n", "\nLABEL a=\"b\" \\\n"] {
            assert_eq!(labels_in(unread), None, "{unread:?}");
        }
    }

    #[test]
    fn the_image_is_labelled_by_the_conventions_of_oci_with_the_version_of_the_programs() {
        let labels = labels().unwrap();
        let of = |name: &str| {
            let name = format!("org.opencontainers.image.{name}");
            let found = labels.iter().find(|(one, _)| *one == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(of("version"), Some(env!("CARGO_PKG_VERSION")));
        for name in [
            "title",
            "description",
            "licenses",
            "url",
            "source",
            "documentation",
        ] {
            assert!(
                of(name).is_some_and(|value| !value.is_empty()),
                "{name}: {labels:?}"
            );
        }
    }
}
