//! How the BPF object is built: which compiler, which linker, and in an environment of its own.
//!
//! Two ways behind one switch. aya's usual way needs a nightly with rust-src, which compiles `core` for the
//! target. Debian packages a compiler with a prebuilt BPF `core`. Neither installs anything: `cargo xtask setup`
//! does, and every error here names it. Depends on nothing but std.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Environment: use this object, named from the workspace's root, and build nothing.
pub(crate) const OBJECT: &str = "OUTRIGGER_BPF_OBJECT";
/// Environment: `nightly` or `debian`, where the choice should not be made by what is installed.
pub(crate) const TOOLCHAIN: &str = "OUTRIGGER_BPF_TOOLCHAIN";

const TARGET: &str = "bpfel-unknown-none";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const REMEDY: &str = "run `cargo xtask setup`, which installs what is missing and says what it does";

/// The linker makes BTF of debug information, and leaves the name of a generic union as Rust has it. The level of
/// aya-log is such a union, and the kernel refuses the whole BTF for it: "UNION MaybeUninit<u8> Invalid name".
const NO_BTF_OF_LOG_LEVEL: &str = "profile.release.package.aya-log-ebpf.debug=0";

/// The linker reads the compiler's bitcode, so it must be built for the same LLVM.
const LINKERS: [(&str, &str); 3] = [("0.9.", "21"), ("0.10.", "22"), ("0.13.", "23")];

/// Puts `outrigger-bpf` into `out`. The error is for people, of several lines.
pub(crate) fn provide(workspace: &Path, out: &Path) -> Result<(), String> {
    let to = out.join("outrigger-bpf");
    let built = match env::var_os(OBJECT) {
        Some(given) => {
            let given = workspace.join(given);
            println!("cargo::rerun-if-changed={}", given.display());
            given
        }
        None => build(workspace, out)?,
    };
    fs::copy(&built, &to).map(drop).map_err(|e| {
        format!(
            "the BPF object {} cannot be copied to {}: {e}",
            built.display(),
            to.display()
        )
    })
}

fn build(workspace: &Path, out: &Path) -> Result<PathBuf, String> {
    let linker = Linker::find(workspace)?;
    let compiler = Compiler::find(&linker)?;
    let libraries = out.join("llvm");
    link_llvm(&compiler, &libraries)?;

    let target_dir = target_dir(out);
    let mut cargo = Command::new(&compiler.cargo);
    forget_outer_cargo(&mut cargo);
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.into());
    cargo
        .current_dir(workspace)
        .env("RUSTC", &compiler.rustc)
        // Debian's compiler is a released one, and the target is not stable. A nightly does not mind.
        .env("RUSTC_BOOTSTRAP", "1")
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--package",
            "sidecar-ebpf",
        ])
        .args([
            "--bin",
            "outrigger-bpf",
            "--features",
            "programs",
            "--target",
            TARGET,
        ])
        .args(["--config", NO_BTF_OF_LOG_LEVEL])
        .args(compiler.arguments())
        .arg("--target-dir")
        .arg(&target_dir)
        // One optimised unit: the linker wants to see everything, and BTF needs the debug information.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker.path)
        .env(
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS",
            format!("--cfg=bpf_target_arch=\"{arch}\" -Clink-arg=--btf"),
        )
        .env("LD_LIBRARY_PATH", library_path(&libraries));

    let output = cargo
        .output()
        .map_err(|e| format!("{:?} cannot be started: {e}; {REMEDY}", cargo.get_program()))?;
    if !output.status.success() {
        return Err(format!(
            "the BPF programs do not build with {}\n{}",
            compiler.describe(),
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(target_dir.join(TARGET).join("release/outrigger-bpf"))
}

/// One for all profiles, beside them: OUT_DIR is `<target>/<profile>/build/<package>/out`. Not the outer cargo's
/// own, which is locked while this runs.
fn target_dir(out: &Path) -> PathBuf {
    out.ancestors().nth(4).unwrap_or(out).join("bpf")
}

struct Compiler {
    way: Way,
    rustc: PathBuf,
    cargo: PathBuf,
    llvm_major: String,
    /// The shared library that the compiler itself runs on.
    llvm: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// rustup's nightly, which compiles `core` itself.
    Nightly,
    /// Debian's `rustc-web`, with `core` from `libstd-rust-web-dev-bpf`.
    Debian,
}

impl Compiler {
    /// The first one that is there and speaks the linker's LLVM.
    fn find(linker: &Linker) -> Result<Self, String> {
        let ways: &[fn() -> Result<Self, String>] = match env::var(TOOLCHAIN).as_deref() {
            Ok("nightly") => &[Self::nightly],
            Ok("debian") => &[Self::debian],
            Ok(other) => return Err(format!("{TOOLCHAIN}={other}: say `nightly` or `debian`")),
            Err(_) => &[Self::nightly, Self::debian],
        };
        let mut reasons = Vec::new();
        for way in ways {
            match way() {
                Ok(compiler) if linker.fits(&compiler) => return Ok(compiler),
                Ok(compiler) => reasons.push(format!(
                    "{} does not fit {}",
                    compiler.describe(),
                    linker.describe()
                )),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(format!(
            "no compiler for the BPF programs: {}; {REMEDY}",
            reasons.join(", and ")
        ))
    }

    fn nightly() -> Result<Self, String> {
        let rustc = |arguments: &[&str]| {
            let mut rustup = Command::new("rustup");
            forget_outer_cargo(&mut rustup);
            answer(rustup.args(["run", "nightly", "rustc"]).args(arguments))
        };
        let version = rustc(&["-vV"]).ok_or("rustup has no nightly")?;
        let sysroot = PathBuf::from(
            rustc(&["--print", "sysroot"])
                .ok_or("nightly has no sysroot")?
                .trim(),
        );
        if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
            return Err("rustup's nightly has no rust-src".into());
        }
        // By their paths: a `rustc` that comes before rustup's on PATH would be taken otherwise.
        let bin = sysroot.join("bin");
        let programs = (bin.join("rustc"), bin.join("cargo"));
        Self::new(Way::Nightly, programs, &version, &[&sysroot.join("lib")])
    }

    fn debian() -> Result<Self, String> {
        let version = answer(Command::new(DEBIAN_RUSTC).arg("-vV"))
            .ok_or_else(|| format!("{DEBIAN_RUSTC} (package rustc-web) is missing"))?;
        let lib = answer(Command::new(DEBIAN_RUSTC).args(["--target", TARGET, "--print", "target-libdir"]))
            .unwrap_or_default();
        if !Path::new(lib.trim()).is_dir() {
            return Err(format!(
                "{DEBIAN_RUSTC} has no core for {TARGET} (package libstd-rust-web-dev-bpf)"
            ));
        }
        let multiarch = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Self::new(
            Way::Debian,
            (DEBIAN_RUSTC.into(), cargo.into()),
            &version,
            &[Path::new(&multiarch), Path::new("/usr/lib")],
        )
    }

    fn new(
        way: Way,
        (rustc, cargo): (PathBuf, PathBuf),
        version: &str,
        libraries: &[&Path],
    ) -> Result<Self, String> {
        let llvm_version = version
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))
            .ok_or_else(|| format!("rustc -vV names no LLVM version: {version}"))?;
        let llvm_major = llvm_version.split('.').next().unwrap_or_default().to_owned();
        let llvm = libraries
            .iter()
            .find_map(|directory| llvm_library(directory, &llvm_major))
            .ok_or_else(|| format!("libLLVM {llvm_version} is not in {libraries:?}"))?;
        Ok(Self {
            way,
            rustc,
            cargo,
            llvm_major,
            llvm,
        })
    }

    fn describe(&self) -> String {
        let name = match self.way {
            Way::Nightly => "rustup's nightly",
            Way::Debian => "Debian's rustc",
        };
        format!("{name} (LLVM {})", self.llvm_major)
    }

    fn arguments(&self) -> &'static [&'static str] {
        match self.way {
            Way::Nightly => &["-Z", "build-std=core"],
            Way::Debian => &[],
        }
    }
}

/// `libLLVM.so.22.1`, `libLLVM.so.22.1-rust-1.95.0-stable` or `libLLVM-22.so`, for major 22.
fn llvm_library(directory: &Path, major: &str) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let version = name
                .strip_prefix("libLLVM.so.")
                .or_else(|| name.strip_prefix("libLLVM-"))
                .unwrap_or_default();
            version.split(|c: char| !c.is_ascii_digit()).next() == Some(major)
        })
        .collect();
    found.sort();
    found.into_iter().next()
}

struct Linker {
    path: PathBuf,
    version: String,
    /// Unknown for versions that came after this list; then the link will tell.
    llvm_major: Option<&'static str>,
}

impl Linker {
    /// Where `cargo xtask setup` puts it, else the user's own.
    fn find(workspace: &Path) -> Result<Self, String> {
        let ours = workspace.join("target/tools/bin/bpf-linker");
        let path = std::iter::once(ours.clone())
            .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(|d| d.join("bpf-linker")))
            .find(|path| path.is_file())
            .and_then(|path| path.canonicalize().ok())
            .ok_or_else(|| {
                format!(
                    "bpf-linker is neither at {} nor on PATH; {REMEDY}",
                    ours.display()
                )
            })?;
        let answer = answer(Command::new(&path).arg("--version"))
            .ok_or_else(|| format!("{} does not run; {REMEDY}", path.display()))?;
        let version = answer.split_whitespace().last().unwrap_or_default().to_owned();
        let known = LINKERS.iter().find(|(prefix, _)| version.starts_with(prefix));
        Ok(Self {
            path,
            llvm_major: known.map(|(_, major)| *major),
            version,
        })
    }

    fn fits(&self, compiler: &Compiler) -> bool {
        self.llvm_major.is_none_or(|major| major == compiler.llvm_major)
    }

    fn describe(&self) -> String {
        format!(
            "bpf-linker {} (LLVM {})",
            self.version,
            self.llvm_major.unwrap_or("unknown")
        )
    }
}

/// A directory with one link, to the compiler's LLVM. The linker opens the first `libLLVM*` that it finds in a
/// library directory, whatever its version, so it must not be shown the system's.
fn link_llvm(compiler: &Compiler, directory: &Path) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("{}: {e}", directory.display());
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(fail)?;
    }
    fs::create_dir_all(directory).map_err(fail)?;
    let name = compiler.llvm.file_name().unwrap_or_default();
    std::os::unix::fs::symlink(&compiler.llvm, directory.join(name)).map_err(fail)
}

/// The linker's LLVM before any that a toolchain has put there.
fn library_path(first: &Path) -> OsString {
    let inherited = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let rest = env::split_paths(&inherited).filter(|path| !path.as_os_str().is_empty());
    env::join_paths(std::iter::once(first.to_owned()).chain(rest)).unwrap_or_else(|_| first.into())
}

/// The cargo that runs a build script describes itself, its package and its flags in the environment. None of
/// that is about the BPF build, and `RUSTUP_TOOLCHAIN` or `RUSTC` would even choose the compiler. How to reach
/// the registry, and the job server, stay.
fn forget_outer_cargo(command: &mut Command) {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
    ];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let outer = text.starts_with("CARGO") && !KEPT.iter().any(|kept| text.starts_with(kept));
        let compiler =
            text.starts_with("RUSTC") || ["RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"].contains(&&*text);
        if outer || compiler {
            command.env_remove(&name);
        }
    }
}

fn answer(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
