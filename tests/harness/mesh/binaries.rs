//! Where Outrigger's programs are. Builds nothing: `cargo xtask test` and `cargo xtask demo` do, before.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Takes all programs from there, from now on; only the first call counts.
pub fn use_dir(dir: PathBuf) {
    let _ = CHOSEN.set(dir);
}

/// Where [`use_dir`] said, or in `OUTRIGGER_BIN_DIR`, or beside the running program: `target/<profile>/`, one up for a test's executable.
pub fn path(name: &str) -> Result<PathBuf> {
    let chosen = CHOSEN.get().cloned();
    let dir = match chosen.or_else(|| std::env::var_os("OUTRIGGER_BIN_DIR").map(PathBuf::from)) {
        Some(dir) => dir,
        None => {
            let own = std::env::current_exe().context("find the running program")?;
            let dir = own.parent().context("a program without a directory")?;
            let dir = if dir.ends_with("deps") {
                dir.parent().unwrap_or(dir)
            } else {
                dir
            };
            dir.into()
        }
    };
    let path = dir.join(name);
    ensure!(
        path.exists(),
        "{} is not built; run: cargo build --bins",
        path.display()
    );
    Ok(path)
}
