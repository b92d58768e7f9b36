//! The Go toolchain that builds the cluster's programs: the machine's when it is new enough, else one that comes as a module.
//! Chooses no registry: where modules come from is the environment's business.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::image::architecture;
use crate::workspace::{self, announce};

/// What Kubernetes 1.36 asks for.
const OLDEST: (u32, u32) = (1, 26);

/// The one that is fetched when the machine's is older.
const FETCHED: &str = "1.26.8";

pub(super) struct Go {
    program: PathBuf,
    /// As `go version` says it.
    pub(super) version: String,
}

impl Go {
    /// `setup` has seen to it that there is one.
    pub(super) fn find() -> Result<Self> {
        let machine = workspace::find_program("go").context("no go; run: cargo xtask setup")?;
        let version = version_of(&machine)?;
        if is_new_enough(&version) {
            return Ok(Self {
                program: machine,
                version,
            });
        }
        announce(&format!("fetch Go {FETCHED}, for {version} is too old"));
        let program = fetch(&machine)?;
        let version = version_of(&program)?;
        Ok(Self { program, version })
    }

    /// In the directory of a module. Builds with this toolchain and no other, whatever the module would like.
    pub(super) fn command(&self, module: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(module).env("GOTOOLCHAIN", "local");
        command
    }
}

fn version_of(go: &Path) -> Result<String> {
    // Not of the toolchain that a `go.mod` above us names.
    let said = workspace::ask(
        Command::new(go)
            .args(["env", "GOVERSION"])
            .current_dir("/")
            .env("GOTOOLCHAIN", "local"),
    );
    let said = said.with_context(|| format!("{} env GOVERSION fails", go.display()))?;
    Ok(said.trim().to_owned())
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version
        .trim_start_matches("go")
        .split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    match (next(), next()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST,
        _ => false,
    }
}

/// Toolchains are modules that any `go` can download; one before 1.21 does not know what they are, and forgets to make the programs
/// executable.
fn fetch(with: &Path) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Downloaded {
        #[serde(rename = "Dir")]
        dir: PathBuf,
    }
    let architecture = architecture();
    let module = format!("golang.org/toolchain@v0.0.1-go{FETCHED}.linux-{architecture}");
    let said = workspace::ask(
        Command::new(with)
            .args(["mod", "download", "-json", &module])
            .current_dir("/")
            .env("GOTOOLCHAIN", "local"),
    );
    let said = said.with_context(|| {
        format!(
            "cannot download {module}; install Go {}.{} or later",
            OLDEST.0, OLDEST.1
        )
    })?;
    let dir = serde_json::from_str::<Downloaded>(&said)
        .with_context(|| format!("what `go mod download` says of {module} is not understood"))?
        .dir;
    for below in ["bin", "pkg/tool"] {
        make_executable(&dir.join(below))?;
    }
    Ok(dir.join("bin/go"))
}

fn make_executable(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            make_executable(&path)?;
        } else {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("make {} executable", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_is_judged_by_both_numbers() {
        for (version, good) in [
            ("go1.26.8", true),
            ("go1.26", true),
            ("go1.27rc1", true),
            ("go2.0", true),
            ("go1.25.9", false),
            ("go1.19.8", false),
            ("devel", false),
        ] {
            assert_eq!(is_new_enough(version), good, "{version}");
        }
    }
}
