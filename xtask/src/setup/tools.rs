//! Tools that cargo builds into the target directory, each at one pinned version.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::compile;
use crate::workspace::{self, announce, ask, find_program, tools_dir};

/// A crate that installs one program of its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    pub(super) why: &'static str,
    profile: Profile,
}

/// How a tool is compiled. Neither does whole-program optimisation or debug information: it is built once on each
/// machine and its users wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    /// Half a minute for the BPF linker, and six with the settings of its own manifest (both measured on two cores).
    Release,
    /// For a tool that runs for a second: 77 s for cargo-deny.
    Dev,
}

pub(super) const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    why: "checks licences and origins of dependencies",
    profile: Profile::Dev,
};

pub(super) const CARGO_FUZZ: Tool = Tool {
    name: "cargo-fuzz",
    version: "0.13.2",
    why: "builds fuzzers",
    profile: Profile::Dev,
};

impl Tool {
    pub(super) const fn bpf_linker(version: &'static str) -> Self {
        Self {
            name: "bpf-linker",
            version,
            why: "links the kernel programs",
            profile: Profile::Release,
        }
    }

    /// Whether this very version is in our directory or on `PATH`.
    pub(super) fn is_there(&self) -> bool {
        let ours = tools_dir().join("bin").join(self.name);
        let candidates: [Option<PathBuf>; 2] = [Some(ours), find_program(self.name)];
        candidates.into_iter().flatten().any(|path| {
            ask(Command::new(path).arg("--version"))
                .is_some_and(|said| said.trim().ends_with(&format!(" {}", self.version)))
        })
    }

    pub(super) fn install(&self) -> Result<()> {
        announce(&format!("building {} {}: {}", self.name, self.version, self.why));
        let reference = match self.profile {
            Profile::Release => &compile::BPF_LINKER,
            Profile::Dev => &compile::ANY,
        };
        compile::run(self.name, self.install_command(), reference).with_context(|| {
            let Self { name, version, .. } = self;
            format!(
                "{name} could not be built; try it by hand: cargo install {name} --version {version} --locked"
            )
        })?;
        // Only the program is needed from here on; a build that failed stays, to go on where it stopped.
        let _ = fs::remove_dir_all(build_dir());
        Ok(())
    }

    fn install_command(&self) -> Command {
        // It warns of a directory that is not on the PATH, which nobody needs there.
        let mut cargo = workspace::cargo_with_tools();
        // What the caller set for our own build does not suit someone else's crate.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if concerns_a_build(&name) {
                cargo.env_remove(&*name);
            }
        }
        cargo
            .args([
                "install",
                self.name,
                "--version",
                self.version,
                "--locked",
                "--force",
                "--root",
            ])
            .arg(tools_dir());
        cargo.arg("--target-dir").arg(build_dir());
        let profile = match self.profile {
            Profile::Release => "RELEASE",
            Profile::Dev => {
                cargo.arg("--debug");
                "DEV"
            }
        };
        for (setting, value) in [("LTO", "off"), ("DEBUG", "0"), ("CODEGEN_UNITS", "16")] {
            cargo.env(format!("CARGO_PROFILE_{profile}_{setting}"), value);
        }
        cargo
    }
}

fn build_dir() -> PathBuf {
    tools_dir().join("build")
}

fn concerns_a_build(variable: &str) -> bool {
    const EXACT: [&str; 6] = [
        "RUSTC",
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_BOOTSTRAP",
        "CARGO_ENCODED_RUSTFLAGS",
    ];
    const PREFIXES: [&str; 4] = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_PKG_"];
    EXACT.contains(&variable) || PREFIXES.iter().any(|prefix| variable.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_tool_is_built_at_its_version_without_slow_optimisation() {
        let command = Tool::bpf_linker("0.10.0").install_command();
        let args: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        assert!(
            args.join(" ")
                .starts_with("install bpf-linker --version 0.10.0 --locked"),
            "{args:?}"
        );
        let env: BTreeMap<_, _> = command.get_envs().collect();
        assert_eq!(
            env[std::ffi::OsStr::new("CARGO_PROFILE_RELEASE_LTO")],
            Some(std::ffi::OsStr::new("off"))
        );
    }

    #[test]
    fn settings_of_our_own_build_do_not_reach_a_tool() {
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "RUSTC_WRAPPER",
        ] {
            assert!(concerns_a_build(name), "{name}");
        }
        for name in ["PATH", "CARGO_HOME", "RUSTUP_TOOLCHAIN", "CARGO_NET_OFFLINE"] {
            assert!(!concerns_a_build(name), "{name}");
        }
    }

    #[test]
    fn another_version_is_not_the_tool() {
        assert!(
            !Tool {
                version: "0.0.0-none",
                ..CARGO_DENY
            }
            .is_there()
        );
    }
}
