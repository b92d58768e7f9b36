//! A pod: network namespace, cgroup, addresses, a directory, and a way to run programs in there. Has no sidecar of
//! its own accord; see [`crate::mesh`].

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cgroup;
use crate::fabric::Shared;
use crate::name;
use crate::netns::Netns;
use crate::process::{Output, Process};
use crate::sys;

/// Longer than anything a test asks for in the foreground.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pod {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    netns: Netns,
    cgroup: PathBuf,
    cgroup_procs: Arc<File>,
    scratch: PathBuf,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    fabric: Arc<Shared>,
}

impl Pod {
    pub(crate) fn place(
        fabric: Arc<Shared>,
        (name, cgroup): (&str, &str),
        netns: Netns,
        ipv4: Ipv4Addr,
        ipv6: Ipv6Addr,
    ) -> Result<Self> {
        let cgroup = cgroup::mount()?.join(fabric.name()).join(cgroup);
        cgroup::create(&cgroup)?;
        let cgroup_procs = Arc::new(cgroup::open_procs(&cgroup)?);
        let scratch = fabric.scratch().join(name);
        fs::create_dir_all(&scratch).with_context(|| format!("make {}", scratch.display()))?;
        let name = name.into();
        let inner = Inner {
            name,
            netns,
            cgroup,
            cgroup_procs,
            scratch,
            ipv4,
            ipv6,
            fabric,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub fn name(&self) -> &str {
        &self.inner.name
    }

    pub fn ipv4(&self) -> Ipv4Addr {
        self.inner.ipv4
    }

    pub fn ipv6(&self) -> Ipv6Addr {
        self.inner.ipv6
    }

    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.ipv4().into(), self.ipv6().into()]
    }

    pub fn netns(&self) -> &Netns {
        &self.inner.netns
    }

    pub fn cgroup(&self) -> &Path {
        &self.inner.cgroup
    }

    /// A directory for the files of this pod's programs; world-readable, so that they may drop their rights.
    pub fn scratch(&self) -> &Path {
        &self.inner.scratch
    }

    pub(crate) fn fabric(&self) -> &Shared {
        &self.inner.fabric
    }

    /// A command that starts in the pod's network namespace and cgroup, so that its connections are intercepted.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_by(program, self.inner.cgroup_procs.clone())
    }

    /// As [`Pod::command`], in a cgroup below the pod's, which is made.
    pub fn command_below(&self, cgroup: &str, program: impl AsRef<OsStr>) -> Result<Command> {
        let cgroup = self.cgroup().join(cgroup);
        cgroup::create(&cgroup)?;
        Ok(self.command_by(program, Arc::new(cgroup::open_procs(&cgroup)?)))
    }

    fn command_by(&self, program: impl AsRef<OsStr>, cgroup_procs: Arc<File>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.scratch());
        sys::start_inside(&mut command, self.netns().file(), cgroup_procs);
        command
    }

    /// Starts a command of [`Pod::command`] in the background. It is killed when the handle is dropped.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        Process::spawn(command, &self.scratch().join("log"))
    }

    /// Runs a program to its end and gives what it printed; longer than a minute is an error.
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Result<Output> {
        let mut command = self.command(program);
        command.args(args);
        Output::of(command, RUN_LIMIT)
    }

    /// As [`Pod::run`], for work that takes longer, or that must not.
    pub fn run_within(&self, command: Command, limit: Duration) -> Result<Output> {
        Output::of(command, limit)
    }

    /// Sets a kernel parameter of the pod's network namespace, e.g. `net/ipv4/ip_local_port_range`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name);
        self.run_in(|| fs::write(&path, value))?
            .with_context(|| format!("write {value:?} to {}", path.display()))
    }

    /// Runs a closure in the pod's network namespace, but in the cgroup of the caller: a thread cannot move to
    /// another cgroup alone. So its connections are NOT intercepted; for intercepted traffic run a program.
    pub fn run_in<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.netns().run(work)
    }
}

/// Attaches to a pod of another process, by the name of its fabric: for `demo exec`. Prepares the command only.
pub fn command_in(fabric: &str, pod: &str, program: impl AsRef<OsStr>) -> Result<Command> {
    let path = Path::new(name::NETNS_DIR).join(format!("{fabric}.{pod}"));
    let netns = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let procs = cgroup::open_procs(&cgroup::mount()?.join(fabric).join(pod))?;
    let mut command = Command::new(program);
    sys::start_inside(&mut command, Arc::new(netns), Arc::new(procs));
    Ok(command)
}
