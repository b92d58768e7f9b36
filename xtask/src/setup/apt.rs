//! Installs Debian packages without starting a service. Decides nothing about which.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::host::Host;
use crate::progress;
use crate::workspace::{self, announce, find_program};

/// Asked by Debian's maintainer scripts before they start a service; exit status 101 forbids it.
const POLICY: &str = "/usr/sbin/policy-rc.d";

const OUR_POLICY: &str = "#!/bin/sh
# Written by Outrigger's `cargo xtask setup` for the time of one apt-get run; safe to remove.
exit 101
";

/// Installs packages, or says which command would.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if find_program("apt-get").is_none() {
        bail!(
            "this is not a Debian system (no apt-get); install what these Debian packages hold by your system's \
             means, then run it again: {}",
            packages.join(" ")
        );
    }
    if !Host::read().is_root() {
        bail!("packages are missing and only root may install them; run: sudo {by_hand}");
    }
    let _no_services = NoServices::begin(Path::new(POLICY))?;
    announce("apt-get update");
    let mut update = apt_get();
    update.args(["--quiet", "update"]);
    progress::run("apt-get update", update, |lines| format!("{lines} lists"))?;
    announce(&by_hand);
    let mut install = apt_get();
    install
        .args(["--quiet", "--yes", "--no-install-recommends", "install"])
        .args(packages);
    // It says a line or two for each package that it fetches, unpacks and sets up.
    progress::run("apt-get install", install, |lines| {
        format!("{lines} lines of what it does")
    })
    .with_context(|| format!("a package could not be installed; try it by hand: {by_hand}"))
}

/// Keeps freshly installed services from starting at the next boot.
pub(super) fn disable_services<'a>(units: impl Iterator<Item = &'a str>) -> Result<()> {
    let units: Vec<_> = units.collect();
    // Without systemd nothing starts them.
    if units.is_empty() || find_program("systemctl").is_none() {
        return Ok(());
    }
    announce(&format!("systemctl disable {}", units.join(" ")));
    workspace::run(Command::new("systemctl").args(["--quiet", "disable"]).args(units))
}

/// apt-get as a chore runs it: without questions.
pub(crate) fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Another apt may be at work on a fresh machine: wait for it instead of failing.
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-o",
        "DPkg::Lock::Timeout=120",
        "-o",
        "Dpkg::Use-Pty=0",
    ]);
    command
}

/// While it lives, packages start no service. A policy that the machine has already is put aside and comes back.
struct NoServices {
    policy: PathBuf,
    aside: PathBuf,
}

impl NoServices {
    fn begin(policy: &Path) -> Result<Self> {
        let scope = Self {
            policy: policy.to_path_buf(),
            aside: policy.with_extension("d.before-outrigger"),
        };
        // A run that was killed left ours in place: what lies aside is the machine's own.
        let ours_is_left = fs::read_to_string(policy).is_ok_and(|text| text == OUR_POLICY);
        if !ours_is_left {
            match fs::rename(policy, &scope.aside) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot put {} aside", policy.display()));
                }
            }
        }
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o755)
            .open(policy);
        written
            .and_then(|mut file| file.write_all(OUR_POLICY.as_bytes()))
            .with_context(|| format!("cannot write {}", policy.display()))?;
        Ok(scope)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        let restored = match fs::rename(&self.aside, &self.policy) {
            Err(error) if error.kind() == ErrorKind::NotFound => fs::remove_file(&self.policy),
            other => other,
        };
        if let Err(error) = restored {
            eprintln!(
                "warning: {} could not be restored ({error}); remove it by hand",
                self.policy.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("outrigger-apt-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn policy(&self) -> PathBuf {
            self.0.join("policy-rc.d")
        }

        fn files(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn says(policy: &Path) -> Option<i32> {
        Command::new(policy)
            .args(["nginx", "start"])
            .status()
            .unwrap()
            .code()
    }

    #[test]
    fn services_are_forbidden_for_its_life_only() {
        let dir = Dir::new("absent");
        let scope = NoServices::begin(&dir.policy()).unwrap();
        assert_eq!(says(&dir.policy()), Some(101));
        drop(scope);
        assert_eq!(dir.files(), 0);
    }

    #[test]
    fn a_policy_of_the_machine_comes_back() {
        let dir = Dir::new("present");
        fs::write(dir.policy(), "#!/bin/sh\nexit 0\n").unwrap();
        drop(NoServices::begin(&dir.policy()).unwrap());
        assert_eq!(fs::read_to_string(dir.policy()).unwrap(), "#!/bin/sh\nexit 0\n");
        assert_eq!(dir.files(), 1);
    }

    #[test]
    fn what_a_killed_run_left_is_cleared() {
        let dir = Dir::new("killed");
        fs::write(dir.policy(), "#!/bin/sh\nexit 0\n").unwrap();
        std::mem::forget(NoServices::begin(&dir.policy()).unwrap());
        drop(NoServices::begin(&dir.policy()).unwrap());
        assert_eq!(fs::read_to_string(dir.policy()).unwrap(), "#!/bin/sh\nexit 0\n");
        assert_eq!(dir.files(), 1);
    }
}
