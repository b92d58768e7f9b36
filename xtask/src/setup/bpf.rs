//! Which compiler builds the BPF programs here, and which bpf-linker matches its LLVM.
//!
//! `sidecar-user/build.rs` makes the same choice when it compiles them: rustup's nightly with rust-src first,
//! Debian's compiler with its prebuilt BPF core otherwise.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt};

use anyhow::{Context, Result};

use super::tools::Tool;
use crate::workspace::ask;

/// Overrides the choice, here and in the build script: `nightly` or `debian`.
const TOOLCHAIN: &str = "OUTRIGGER_BPF_TOOLCHAIN";

/// Debian's compiler for the BPF target.
pub(super) const PACKAGES: [(&str, &str); 2] = [
    ("rustc-web", "a Rust compiler for the kernel programs"),
    ("libstd-rust-web-dev-bpf", "the core library for the BPF target"),
];

pub(super) const NO_COMPILER: &str = "no compiler for the BPF programs was found, neither rustup's nor Debian's; \
    run: apt-get install rustc-web libstd-rust-web-dev-bpf, \
    or: rustup toolchain install nightly --component rust-src";

/// bpf-linker reads the compiler's bitcode with the compiler's own LLVM, so their major versions must be equal.
const LINKERS: [(u32, &str); 2] = [(21, "0.9.15"), (22, "0.10.0")];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Compiler {
    /// aya's usual way: core is built from source.
    Nightly { llvm: u32 },
    /// Debian's rustc with a prebuilt core.
    Debian { rustc: PathBuf, llvm: u32 },
}

impl Compiler {
    pub(super) fn find() -> Option<Self> {
        match env::var(TOOLCHAIN).as_deref() {
            Ok("nightly") => Self::nightly(),
            Ok("debian") => Self::debian(),
            _ => Self::nightly().or_else(Self::debian),
        }
    }

    fn nightly() -> Option<Self> {
        let rustc = || {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "rustc"]);
            command
        };
        let sysroot = ask(rustc().args(["--print", "sysroot"]))?;
        let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
        let llvm = source
            .is_dir()
            .then(|| ask(rustc().arg("-vV")))?
            .as_deref()
            .and_then(llvm_major)?;
        // A nightly that is ahead of every linker we know is as good as none.
        linker_version(llvm).map(|_| Self::Nightly { llvm })
    }

    fn debian() -> Option<Self> {
        let rustc = PathBuf::from("/usr/bin/rustc");
        let sysroot = ask(Command::new(&rustc).args(["--print", "sysroot"]))?;
        let target = Path::new(sysroot.trim()).join("lib/rustlib/bpfel-unknown-none");
        let llvm = target
            .is_dir()
            .then(|| ask(Command::new(&rustc).arg("-vV")))?
            .as_deref()
            .and_then(llvm_major)?;
        Some(Self::Debian { rustc, llvm })
    }

    pub(super) fn linker(&self) -> Result<Tool> {
        let (Self::Nightly { llvm } | Self::Debian { llvm, .. }) = *self;
        let version = linker_version(llvm).with_context(|| {
            let known: Vec<_> = LINKERS.iter().map(|(major, _)| major.to_string()).collect();
            format!("{self}, and no bpf-linker is known to match it (known: LLVM {}); add it to xtask/src/setup/bpf.rs", known.join(", "))
        })?;
        Ok(Tool::bpf_linker(version))
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nightly { llvm } => write!(f, "BPF programs are built by rustup's nightly, LLVM {llvm}"),
            Self::Debian { rustc, llvm } => {
                write!(f, "BPF programs are built by {}, LLVM {llvm}", rustc.display())
            }
        }
    }
}

/// The pair that is in use, in words.
pub(super) fn describe() -> Result<String> {
    let compiler = Compiler::find().context(NO_COMPILER)?;
    let linker = compiler.linker()?;
    Ok(format!("{compiler}, and linked by bpf-linker {}", linker.version))
}

fn linker_version(llvm: u32) -> Option<&'static str> {
    LINKERS
        .iter()
        .find(|(major, _)| *major == llvm)
        .map(|(_, version)| *version)
}

/// From the output of `rustc -vV`.
fn llvm_major(verbose_version: &str) -> Option<u32> {
    let version = verbose_version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_follows_the_compilers_llvm() {
        for (llvm, version) in [(21, "0.9.15"), (22, "0.10.0")] {
            assert_eq!(Compiler::Nightly { llvm }.linker().unwrap().version, version);
        }
    }

    #[test]
    fn an_unknown_llvm_is_named_with_the_remedy() {
        let compiler = Compiler::Debian {
            rustc: "/usr/bin/rustc".into(),
            llvm: 99,
        };
        let error = compiler.linker().unwrap_err().to_string();
        assert!(
            error.contains("/usr/bin/rustc, LLVM 99") && error.contains("setup/bpf.rs"),
            "{error}"
        );
    }

    #[test]
    fn llvm_is_read_from_the_compilers_own_words() {
        let words =
            "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(words), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
    }
}
