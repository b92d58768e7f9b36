//! `install` and, for a pod of an agent, `detach`: asks the agent of this node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use crate::grant::{Answer, Request, Wanted};
use crate::lifecycle::messages::Messages;

/// An agent answers before it installs.
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct Install {
    /// The agent's socket
    #[arg(long, value_name = "PATH", default_value = "/run/outrigger/agent.sock")]
    socket: PathBuf,
    #[command(flatten)]
    pod: Pod,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Pod {
    /// Its cgroup2 directory
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// One of its processes
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Its UID
    #[arg(long, value_name = "UID")]
    uid: Option<String>,
}

impl Install {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Pod { cgroup, pid, uid } = self.pod;
        let wanted = wanted(cgroup, pid, uid).context("name a pod by --cgroup, --pid or --uid")?;
        ask(&self.socket, &Request::Install(wanted))
    }
}

/// The pod that one of them names.
pub(super) fn wanted(cgroup: Option<PathBuf>, pid: Option<u32>, uid: Option<String>) -> Option<Wanted> {
    match (cgroup, pid, uid) {
        (Some(cgroup), ..) => Some(Wanted::Cgroup(cgroup)),
        (_, Some(pid), _) => Some(Wanted::Pid(pid)),
        (.., uid) => uid.map(Wanted::Uid),
    }
}

/// Has the agent do it.
pub(super) fn ask(socket: &Path, request: &Request) -> anyhow::Result<()> {
    let agent = Messages::connect_path(socket).with_context(|| {
        format!(
            "no agent listens at {}; start `outrigger agent`, or name its socket in --socket",
            socket.display()
        )
    })?;
    agent.send(&serde_json::to_vec(request)?, &[])?;
    let answer = agent.receive(Some(ANSWER)).context("the agent does not answer")?;
    let answer = answer.context("the agent has ended")?;
    match serde_json::from_slice(&answer.text)? {
        Answer::Done => Ok(()),
        Answer::Refused { why } => bail!("the agent refuses: {why}"),
        _ => bail!("the agent answers what this version does not understand"),
    }
}
