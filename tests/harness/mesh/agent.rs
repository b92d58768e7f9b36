//! `outrigger agent` for the pods of one fabric, outside of all of them. The pods are those that it is asked to install.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::cgroup;
use crate::fabric::Shared;
use crate::mesh::{Control, binaries};
use crate::name;
use crate::pod::Pod;
use crate::process::{Output, Process};
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
    /// What it is told of the authority, if it is to reach one.
    control: Mutex<Option<Vec<OsString>>>,
    /// The only capabilities that it has, if not all.
    capabilities: Mutex<Option<Vec<String>>>,
}

impl Agent {
    pub(crate) fn kill(&self) {
        self.lock().take();
    }

    pub(crate) fn log(&self) -> String {
        self.lock().as_ref().map(Process::log).unwrap_or_default()
    }

    /// Tells it to end, waits until it has, and returns its log.
    pub(crate) fn end(&self) -> Result<String> {
        let none = "the agent does not run";
        self.lock().as_ref().context(none)?.signal(Signal::SIGTERM)?;
        // Whoever wants to read its log meanwhile can.
        let status = wait::until_some("the agent ends", wait::SOON, || {
            self.lock().as_mut().context(none)?.ended()
        })?;
        let process = self.lock().take().context(none)?;
        ensure!(
            status.success(),
            "the agent ended with {status}:\n{}",
            process.log()
        );
        Ok(process.log())
    }

    /// From its next start on it has these capabilities (`net_admin`) and no others.
    pub(crate) fn confine(&self, capabilities: &[String]) {
        *self.capabilities.lock().expect("no test panics with it") = Some(capabilities.to_owned());
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
        let words = words.map(OsString::from).into();
        *self.control.lock().expect("no test panics with it") = Some(words);
        Ok(())
    }

    /// Starts it where it does not run.
    pub(crate) fn start(&self, fabric: &Shared) -> Result<()> {
        let mut running = self.lock();
        if running.is_some() {
            return Ok(());
        }
        let outrigger = self.program()?;
        let words = self.control.lock().expect("no test panics with it").clone();
        let mut command = match (words.is_some(), fabric.api_server().is_some()) {
            (false, false) => {
                let mut command = Command::new(&outrigger[0]);
                command.args(&outrigger[1..]);
                command
            }
            // What it asks is on the host's side of the bridge.
            (true, false) => {
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net={}/{}", name::NETNS_DIR, fabric.name()))
                    .args(outrigger);
                command
            }
            // With a cgroup namespace of its own, too, as a container has.
            (_, true) => {
                let own = cgroup::mount()?.join(fabric.name()).join("agent");
                cgroup::create(&own)?;
                let mut command = Command::new("sh");
                command
                    .args(["-c", "echo $$ >\"$0\" && exec nsenter \"$@\""])
                    .arg(own.join("cgroup.procs"))
                    .arg(format!("--net={}/{}", name::NETNS_DIR, fabric.name()))
                    .args(["unshare", "--cgroup"])
                    .args(outrigger);
                command
            }
        };
        // Without a cluster a directory in which nothing is found: pods are asked for.
        let directory = match fabric.api_server() {
            None => "agent",
            Some(_) => KUBEPODS,
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
            .args(words.unwrap_or_default());
        let mut process = Process::spawn(command, &fabric.scratch().join("log"))?;
        process.until("serves the node", |process| {
            process.log().contains("the agent serves this node")
        })?;
        *running = Some(process);
        Ok(())
    }

    /// What runs it, with the capabilities that it is to have.
    fn program(&self) -> Result<Vec<OsString>> {
        let mut words = Vec::new();
        if let Some(own) = &*self.capabilities.lock().expect("no test panics with it") {
            let own: String = own.iter().map(|name| format!(",+{name}")).collect();
            words.push("setpriv".into());
            for set in ["--bounding-set", "--inh-caps"] {
                words.push(format!("{set}=-all{own}").into());
            }
        }
        words.push(binaries::path("outrigger")?.into());
        Ok(words)
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
    ask(pod, &["install"])?.ok().map(drop)
}

/// Asks the agent for something about a pod, by the command line.
pub fn ask(pod: &Pod, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(binaries::path("outrigger")?);
    command.args(words).arg("--socket").arg(socket(pod.fabric()));
    command.arg("--cgroup").arg(pod.cgroup());
    Output::of(command, wait::SOON)
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

pub(crate) fn pins(fabric: &Shared) -> PathBuf {
    fabric.bpffs().join("agent")
}

pub(crate) fn socket(fabric: &Shared) -> PathBuf {
    fabric.scratch().join("agent.sock")
}
