//! Where things are in this checkout, and how chores start programs. Decides nothing about either.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::compile;

/// Our program, which is the kubectl plugin where it is called so.
pub(crate) const PROGRAM: &str = "outrigger";
pub(crate) const PLUGIN: &str = "kubectl-outrigger";

/// The directory of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable for `cargo run` too, so a moved checkout is found without a rebuild.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest)
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo's target directory, absolute.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => std::path::absolute(&dir).unwrap_or_else(|_| dir.into()),
        None => root().join("target"),
    }
}

/// Where `setup` installs the tools that cargo builds. Inside the target directory, so git ignores it and
/// `cargo clean` removes it.
pub(crate) fn tools_dir() -> PathBuf {
    target_dir().join("tools")
}

/// Where a plain `cargo build` puts the programs.
pub(crate) fn bin_dir() -> PathBuf {
    target_dir().join("debug")
}

/// The cargo that runs this chore, in the workspace's root.
///
/// Its environment is the caller's: `sidecar-user/build.rs` runs again when `PATH` changes, so a chore that changed it
/// would make the next plain `cargo build` start over.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    if env::var_os("CARGO_TARGET_DIR").is_some() {
        // It may be relative to the caller's directory; and there the build script does not look for our tools.
        command
            .env("CARGO_TARGET_DIR", target_dir())
            .env("PATH", path_with_tools());
    }
    command
}

/// The same with our tools first on its `PATH`, for cargo's subcommands.
pub(crate) fn cargo_with_tools() -> Command {
    let mut command = cargo();
    command.env("PATH", path_with_tools());
    command
}

/// The first executable of that name on `PATH`, or in the directories of system programs, which the `PATH`
/// of an ordinary user leaves out.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| is_executable(candidate))
}

/// Runs a command to its end with our own output, and names it if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = command_line(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// What a command prints, or nothing if it cannot be run or fails: for asking programs about themselves.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// Builds the programs of these packages as users get them, and says where they are.
pub(crate) fn build_release(packages: &[&str]) -> Result<PathBuf> {
    announce("cargo build --release");
    let dir = target_dir().join("release");
    // One by one: built together, each has the features of dependencies that only the other asks for.
    for package in packages {
        let mut command = cargo();
        command.args(["build", "--release", "--package", package]);
        let reference = match *package {
            // One program, which is the plugin too where it is called so, as in the image; linking takes longest of all.
            PROGRAM => {
                command.args(["--bin", PROGRAM]);
                &compile::OUTRIGGER
            }
            _ => {
                command.arg("--bins");
                &compile::ANY
            }
        };
        compile::run(package, command, reference)?;
        if *package == PROGRAM {
            name_plugin(&dir)?;
        }
    }
    Ok(dir)
}

/// Gives the program its other name.
fn name_plugin(dir: &Path) -> Result<()> {
    let plugin = dir.join(PLUGIN);
    if fs::read_link(&plugin).is_ok_and(|to| to == Path::new(PROGRAM)) {
        return Ok(());
    }
    // A plain `cargo build --release` puts a program of its own there.
    let _ = fs::remove_file(&plugin);
    symlink(PROGRAM, &plugin).with_context(|| format!("link {}", plugin.display()))
}

/// Says which step begins.
pub(crate) fn announce(step: &str) {
    eprintln!("==> {step}");
}

fn path_with_tools() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let tools = tools_dir().join("bin");
    env::join_paths(std::iter::once(tools).chain(env::split_paths(&path))).unwrap_or(path)
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

pub(crate) fn command_line(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    std::iter::once(program)
        .chain(command.get_args().map(|arg| arg.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"), "{manifest}");
    }

    #[test]
    fn a_failing_command_is_named() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert!(error.to_string().contains("`sh -c exit 3` failed"), "{error}");
        assert!(error.to_string().contains('3'), "{error}");
    }

    #[test]
    fn programs_are_found_by_name_and_only_when_they_exist() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-such-program-anywhere"), None);
    }

    #[test]
    fn our_tools_come_first() {
        let first = env::split_paths(&path_with_tools()).next();
        assert_eq!(first, Some(tools_dir().join("bin")));
    }
}
