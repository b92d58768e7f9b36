//! A sidecar with the rights that a service manager would leave it, and the command that asks how it stands.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Sidecar;
use crate::mesh::{agent, binaries};
use crate::process::Output;
use crate::{seccomp, sys, wait};

/// Nobody's, as Debian has it.
const UNPRIVILEGED: u32 = 65534;

/// Before a command: makes it another user with these capabilities, and no way to others.
pub(super) fn words(capabilities: &[String]) -> Vec<OsString> {
    words_of(UNPRIVILEGED, capabilities)
}

pub(super) fn words_of(user: u32, capabilities: &[String]) -> Vec<OsString> {
    let only: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    let ids = ["reuid", "regid"].map(|id| format!("--{id}={user}"));
    let sets = ["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}=-all{only}"));
    let first = ["setpriv", "--clear-groups", "--no-new-privs"].map(OsString::from);
    first
        .into_iter()
        .chain(ids.into_iter().chain(sets).map(OsString::from))
        .collect()
}

impl Sidecar {
    /// Whom it runs as; `None`: as the tests do.
    pub(super) fn user(&self) -> Option<u32> {
        match (&self.only_capabilities, self.by_agent) {
            (Some(_), _) => Some(UNPRIVILEGED),
            (None, true) => Some(agent::SIDECAR_USER),
            (None, false) => None,
        }
    }

    /// Makes files its user's own.
    pub fn give(&self, paths: &[&Path]) -> Result<()> {
        let user = self.user();
        // A test may have named a token that is not there.
        let there = paths.iter().filter(|path| user.is_some() && path.exists());
        let mut given = there.map(|path| chown(path, user, user));
        given
            .try_for_each(|given| given)
            .context("give files to another user")
    }

    /// A command in the cgroup of the sidecar and with what a container runtime leaves to one that asks for nothing: an
    /// ordinary user, no capability, a read-only root but for its own directory, and the default seccomp filter.
    pub fn confined(&self, words: &[OsString]) -> Result<Command> {
        let mut all = words_of(agent::SIDECAR_USER, &[]);
        all.extend_from_slice(words);
        let mut command = self.pod().command_below(&self.container, &all[0])?;
        command.args(&all[1..]);
        sys::confine(&mut command, self.dir(), seccomp::runtime_default())?;
        Ok(command)
    }

    /// `outrigger status` with these arguments, on the host.
    pub fn status(&self, args: &[&OsStr]) -> Result<Output> {
        let mut command = Command::new(binaries::path("outrigger")?);
        command.arg("status").args(args);
        self.pod().run_within(command, wait::SOON)
    }
}
