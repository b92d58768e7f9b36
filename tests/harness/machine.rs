//! A machine whose first process is a systemd, in namespaces of its own: real units are started by the real thing. It has the
//! network of a fabric's node and this machine's files; what it changes is gone with it.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::fabric::Fabric;
use crate::mesh::binaries;
use crate::process::{Output, Process};
use crate::wait;

/// What units depend on that have no other dependencies, as systemd has them.
const TARGETS: [&str; 7] = [
    "sysinit.target",
    "basic.target",
    "shutdown.target",
    "umount.target",
    "network-pre.target",
    "network-online.target",
    "multi-user.target",
];

/// Killed on drop, with all that runs in it.
#[derive(Debug)]
pub struct Machine {
    fabric: Fabric,
    init: Process,
}

/// What there is before it boots.
#[derive(Debug)]
pub struct Files {
    fabric: Fabric,
    etc: PathBuf,
}

impl Files {
    pub fn new(fabric: &Fabric) -> Result<Self> {
        let etc = fabric.scratch().join("etc");
        let copy = ["-a", "/etc"]
            .map(OsStr::new)
            .into_iter()
            .chain([etc.as_os_str()]);
        fabric.node().run("cp", copy)?.ok()?;
        let files = Self {
            fabric: fabric.clone(),
            etc,
        };
        for target in TARGETS.into_iter().chain(["machine.target"]) {
            files.write(&format!("units/{target}"), "[Unit]\nDefaultDependencies=no\n")?;
        }
        Ok(files)
    }

    /// Below `/etc`.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.etc.join(name);
        let dir = path.parent().context("a name below /etc")?;
        fs::create_dir_all(dir)?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    pub fn boot(self) -> Result<Machine> {
        let (node, scratch) = (self.fabric.node(), self.fabric.scratch());
        let script = scratch.join("machine.sh");
        fs::write(&script, include_str!("programs/machine.sh"))?;
        let mut command = node.command("unshare");
        command.args([
            "--mount",
            "--uts",
            "--ipc",
            "--cgroup",
            "--pid",
            "--fork",
            "--mount-proc",
        ]);
        command.arg("--kill-child").arg("sh").arg(&script);
        command.arg(&self.etc).arg(binaries::path("outrigger")?);
        let init = node.spawn(command)?;
        let mut machine = Machine {
            fabric: self.fabric,
            init,
        };
        let is_up = || machine.run("systemctl", ["show", "-p", "Version"]);
        wait::until("the machine's systemd answers", wait::SOON, || {
            is_up().is_ok_and(|said| said.status.success())
        })
        .with_context(|| machine.init.last_words())?;
        machine.init.until("lives", |_| true)?;
        Ok(machine)
    }
}

impl Machine {
    /// In all of its namespaces.
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Result<Output> {
        let first = self.first_process()?.to_string();
        let mut command = self.fabric.node().command("nsenter");
        command.args([
            "--target", &first, "--mount", "--uts", "--ipc", "--cgroup", "--pid", "--",
        ]);
        command.arg(program).args(args);
        self.fabric.node().run_within(command, Duration::from_secs(60))
    }

    /// Several commands as root's shell has them.
    pub fn shell(&self, commands: &str) -> Result<String> {
        self.run("sh", ["-ec", commands])?
            .ok()
            .with_context(|| commands.to_owned())
    }

    /// One property of a unit.
    pub fn show(&self, unit: &str, property: &str) -> Result<String> {
        let said = self
            .run("systemctl", ["show", "--value", "-p", property, unit])?
            .ok()?;
        Ok(said.trim().to_owned())
    }

    pub fn last_words(&self) -> String {
        self.init.last_words()
    }

    /// As it is seen from outside.
    fn first_process(&self) -> Result<u32> {
        let parent = self.init.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        let first = children.split(' ').next().unwrap_or_default();
        ensure!(
            !first.is_empty(),
            "it has no first process (yet): {}",
            self.last_words()
        );
        Ok(first.parse()?)
    }
}
