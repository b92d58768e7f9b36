//! Whether anybody but this process is left in a cgroup. Ends nothing.
//!
//! One of the others is waited for, the *witness*: while it lives, nobody has to be counted. When it ends, the next one
//! is looked for. A process that can be named is waited for by a pidfd. One of another PID namespace, as in another
//! container, is listed as 0, and then its cgroup is the witness: `cgroup.events` tells when that has become empty.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::Interest;
use tokio::sync::watch;

use super::sys;

/// The programs of a pod, this process apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// None has been there yet.
    Unseen,
    Here,
    /// There were some.
    Gone,
}

/// Nothing tells when the first process comes, so it is looked for this often, until there is one.
const FIRST_LOOK: Duration = Duration::from_millis(25);
/// A process that forks and ends while the list is read may be missed together with its child: the second look counts.
const SECOND_LOOK: Duration = Duration::from_millis(50);
/// Between looks at processes that nothing tells the end of.
const BLIND_LOOK: Duration = Duration::from_secs(1);

/// What the container runtime keeps in a pod's cgroup for as long as the pod lives.
const INFRASTRUCTURE: &str = "pause";

/// Who is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Witness {
    Process(u32),
    /// A cgroup of processes that cannot be named, which this process is not in.
    Cgroup(PathBuf),
    /// A process that cannot be named, in this process's own cgroup.
    Nameless,
}

/// Tells how the programs of this cgroup are doing, until they have ended.
pub async fn follow_application(cgroup: PathBuf, tell: watch::Sender<Application>) {
    let own = Own::of_this_process();
    loop {
        match others(&cgroup, &own) {
            Ok(Some(witness)) => {
                if *tell.borrow() == Application::Unseen {
                    tracing::info!(cgroup = %cgroup.display(), "the pod has a program; this proxy ends with the last one");
                    tell.send_replace(Application::Here);
                }
                if let Err(error) = witness.end().await {
                    tracing::debug!(?witness, %error, "its end cannot be waited for");
                    tokio::time::sleep(BLIND_LOOK).await;
                }
            }
            Ok(None) if *tell.borrow() == Application::Unseen => tokio::time::sleep(FIRST_LOOK).await,
            Ok(None) => {
                tokio::time::sleep(SECOND_LOOK).await;
                if matches!(others(&cgroup, &own), Ok(None)) {
                    tell.send_replace(Application::Gone);
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(
                    cgroup = %cgroup.display(), %error,
                    "the processes of the pod cannot be listed, so the proxy does not end with them"
                );
                tokio::time::sleep(BLIND_LOOK).await;
            }
        }
    }
}

/// This process, and what runs the same program: `outrigger drain` waits for us.
struct Own {
    pid: u32,
    program: Option<(u64, u64)>,
    name: Option<String>,
}

impl Own {
    fn of_this_process() -> Self {
        Self {
            pid: std::process::id(),
            program: program("self"),
            name: name("self"),
        }
    }

    /// What another process runs is shown to whoever may trace it, which takes every capability that it has. Its name is
    /// shown to everybody.
    fn is(&self, pid: u32) -> bool {
        let process = pid.to_string();
        pid == self.pid
            || match program(&process) {
                Some(program) => self.program == Some(program),
                None => self.name.is_some() && name(&process) == self.name,
            }
    }
}

/// Device and inode of what a process runs; `None` where that may not be seen.
fn program(process: &str) -> Option<(u64, u64)> {
    let of = |file: Metadata| (file.dev(), file.ino());
    fs::metadata(format!("/proc/{process}/exe")).ok().map(of)
}

fn name(process: &str) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// One of the processes in the cgroup and below that count.
fn others(top: &Path, own: &Own) -> io::Result<Option<Witness>> {
    let mut below = vec![top.to_owned()];
    while let Some(cgroup) = below.pop() {
        let pids = match fs::read_to_string(cgroup.join("cgroup.procs")) {
            Ok(pids) => pids,
            // It has been removed meanwhile, or is threaded: the cgroup above it lists its processes.
            Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::Unsupported => continue,
            Err(error) => return Err(error),
        };
        let pids: Vec<u32> = pids.lines().filter_map(|pid| pid.parse().ok()).collect();
        let is_ours = pids.contains(&own.pid);
        // A container of our own, with what started us and whoever looks into it.
        if !is_ours || cgroup == top {
            for pid in pids {
                match pid {
                    0 if is_ours => return Ok(Some(Witness::Nameless)),
                    0 => return Ok(Some(Witness::Cgroup(cgroup))),
                    pid if own.is(pid) || is_infrastructure(pid) => {}
                    pid => return Ok(Some(Witness::Process(pid))),
                }
            }
        }
        let entries = fs::read_dir(&cgroup).into_iter().flatten().flatten();
        let children = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        below.extend(children.map(|child| child.path()));
    }
    Ok(None)
}

/// ENODEV is what a file of a removed cgroup says that was open already.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

fn is_infrastructure(pid: u32) -> bool {
    name(&pid.to_string()).is_some_and(|name| name == INFRASTRUCTURE)
}

impl Witness {
    /// Completes when it has ended.
    async fn end(&self) -> io::Result<()> {
        match self {
            Self::Process(pid) => match sys::pidfd_open(*pid) {
                Ok(process) => {
                    let process = sys::watch(process, Interest::READABLE)?;
                    process.readable().await?.retain_ready();
                    Ok(())
                }
                Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {
                    // Its thread group leader has ended; what the list still shows changes in a moment.
                    tokio::time::sleep(SECOND_LOOK).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Self::Cgroup(cgroup) => match emptied(cgroup).await {
                Err(error) if is_gone(&error) => Ok(()),
                ended => ended,
            },
            Self::Nameless => {
                tokio::time::sleep(BLIND_LOOK).await;
                Ok(())
            }
        }
    }
}

/// The kernel wakes whoever polls `cgroup.events` when it changes after it was read.
async fn emptied(cgroup: &Path) -> io::Result<()> {
    let events = File::open(cgroup.join("cgroup.events"))?;
    let mut file = events.try_clone()?;
    let events = sys::watch(events.into(), Interest::PRIORITY)?;
    loop {
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        if !text.lines().any(|line| line == "populated 1") {
            return Ok(());
        }
        events.ready(Interest::PRIORITY).await?.clear_ready();
    }
}

#[cfg(test)]
mod tests;
