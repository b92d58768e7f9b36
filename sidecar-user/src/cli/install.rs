//! `install`: asks the agent of this node to install a pod.

use std::path::PathBuf;
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
        let wanted = match (cgroup, pid, uid) {
            (Some(cgroup), ..) => Wanted::Cgroup(cgroup),
            (_, Some(pid), _) => Wanted::Pid(pid),
            (.., Some(uid)) => Wanted::Uid(uid),
            _ => bail!("name a pod by --cgroup, --pid or --uid"),
        };
        let agent = Messages::connect_path(&self.socket).with_context(|| {
            format!(
                "no agent listens at {}; start `outrigger agent`, or name its socket in --socket",
                self.socket.display()
            )
        })?;
        agent.send(&serde_json::to_vec(&Request::Install(wanted))?, &[])?;
        let answer = agent.receive(Some(ANSWER)).context("the agent does not answer")?;
        let answer = answer.context("the agent has ended")?;
        match serde_json::from_slice(&answer.text)? {
            Answer::Done => Ok(()),
            Answer::Refused { why } => bail!("the agent refuses: {why}"),
            _ => bail!("the agent answers what this version does not understand"),
        }
    }
}
