//! `outrigger agent` for the pods of one fabric, outside of all of them. The pods are those that it is asked to install.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result, ensure};

use crate::cgroup;
use crate::fabric::Shared;
use crate::mesh::{Control, binaries};
use crate::name;
use crate::pod::Pod;
use crate::process::Process;
use crate::wait;

/// The user that its sidecars run as.
pub const SIDECAR_USER: u32 = 65532;
/// Where they ask.
pub const DOOR: &str = "@outrigger/agent";
/// The cgroup below a pod's where they run.
pub const SIDECAR: &str = "outrigger";
/// The cgroup of a fabric in which are those of pods of Kubernetes.
pub(crate) const KUBEPODS: &str = "kubepods";
/// What its agent serves there.
pub const NODE: &str = "n1";

/// Set for a whole run of the tests: sidecars are the agent's unless a test says otherwise.
const BY_DEFAULT: &str = "OUTRIGGER_TEST_AGENT";

pub fn is_default() -> bool {
    std::env::var_os(BY_DEFAULT).is_some_and(|word| word == "1")
}

/// The agent of a fabric, started when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Agent {
    process: Mutex<Option<Process>>,
    /// What it is told of the authority.
    control: Mutex<Vec<OsString>>,
}

impl Agent {
    pub(crate) fn kill(&self) {
        self.lock().take();
    }

    pub(crate) fn log(&self) -> String {
        self.lock().as_ref().map(Process::log).unwrap_or_default()
    }

    /// Lets it ask the authority for its pods, from its next start on.
    pub(crate) fn reaches(&self, fabric: &Shared, control: &Control) -> Result<()> {
        let token = fabric.scratch().join("agent-token");
        // An authority without a cluster asks for none, and believes the pod's alone.
        fs::write(&token, "agent")?;
        let (authority, root) = (control.authority(), control.root());
        let words: [&OsStr; 6] = [
            "--control".as_ref(),
            authority.as_ref(),
            "--control-roots".as_ref(),
            root.as_ref(),
            "--control-token".as_ref(),
            token.as_ref(),
        ];
        *self.control.lock().expect("no test panics with it") = words.map(OsString::from).into();
        Ok(())
    }

    /// Starts it where it does not run.
    pub(crate) fn start(&self, fabric: &Shared) -> Result<()> {
        let mut running = self.lock();
        if running.is_some() {
            return Ok(());
        }
        let outrigger = binaries::path("outrigger")?;
        // Without a cluster a directory in which nothing is found: pods are asked for.
        let (directory, mut command) = match fabric.api_server() {
            None => ("agent", Command::new(outrigger)),
            Some(_) => {
                // With a cgroup namespace of its own, as a container has.
                let own = cgroup::mount()?.join(fabric.name()).join("agent");
                cgroup::create(&own)?;
                let mut command = Command::new("sh");
                command
                    .args(["-c", "echo $$ >\"$0\" && exec nsenter \"$@\""])
                    .arg(own.join("cgroup.procs"))
                    .arg(format!("--net={}/{}", name::NETNS_DIR, fabric.name()))
                    .args(["unshare", "--cgroup"])
                    .arg(outrigger);
                (KUBEPODS, command)
            }
        };
        let pods = cgroup::mount()?.join(fabric.name()).join(directory);
        cgroup::create(&pods)?;
        if let Some(url) = fabric.api_server() {
            command
                .env("OUTRIGGER_NODE", NODE)
                .env("OUTRIGGER_API_SERVER", url);
        }
        command
            .arg("agent")
            .arg("--pins")
            .arg(pins(fabric))
            .arg("--pods")
            .arg(&pods)
            .args(["--sidecar", SIDECAR])
            .arg("--socket")
            .arg(socket(fabric))
            .args(&*self.control.lock().expect("no test panics with it"));
        let mut process = Process::spawn(command, &fabric.scratch().join("log"))?;
        process.until("serves the node", |process| {
            process.log().contains("the agent serves this node")
        })?;
        *running = Some(process);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().expect("no test panics with it")
    }
}

/// Asks for a pod, which has a process by then or soon.
pub(crate) fn install(pod: &Pod) -> Result<()> {
    wait::until("the pod has a process", wait::SOON, || {
        !cgroup::processes(pod.cgroup()).is_empty()
    })?;
    let output = Command::new(binaries::path("outrigger")?)
        .args(["install", "--socket"])
        .arg(socket(pod.fabric()))
        .arg("--cgroup")
        .arg(pod.cgroup())
        .output()
        .context("run outrigger install")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "outrigger install: {stderr}");
    Ok(())
}

pub(crate) fn pins_of(pod: &Pod) -> PathBuf {
    let uid = || {
        pod.cgroup()
            .file_name()?
            .to_str()?
            .strip_prefix("pod")
            .filter(|uid| uid.len() == 36)
    };
    pins(pod.fabric()).join("pods").join(uid().unwrap_or(pod.name()))
}

fn pins(fabric: &Shared) -> PathBuf {
    fabric.bpffs().join("agent")
}

pub(crate) fn socket(fabric: &Shared) -> PathBuf {
    fabric.scratch().join("agent.sock")
}
