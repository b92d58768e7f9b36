//! `detach`: by the kernel door, or by the agent of this node.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::install::{ask, wanted};
use crate::datapath;
use crate::grant::Request;

#[derive(Debug, Args)]
pub struct Detach {
    #[command(flatten)]
    what: What,
    /// The socket of the agent, for a pod of one
    #[arg(long, value_name = "PATH", default_value = "/run/outrigger/agent.sock")]
    socket: PathBuf,
    /// Take the hooks away from a proxy that runs: the pod's connections then go out unprotected
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The directory that the proxy's `interception.pins` names
    #[arg(long, value_name = "DIR")]
    pins: Option<PathBuf>,
    /// A pod of an agent, by its UID
    #[arg(long, value_name = "UID")]
    uid: Option<String>,
    /// A pod of an agent, by its cgroup2 directory
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// A pod of an agent, by one of its processes
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

impl Detach {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let What {
            pins,
            uid,
            cgroup,
            pid,
        } = self.what;
        if let Some(pins) = pins {
            for removed in datapath::detach(&pins, self.force)? {
                println!("removed {}", removed.display());
            }
            return Ok(());
        }
        let pod = wanted(cgroup, pid, uid).context("name --pins, or a pod by --uid, --cgroup or --pid")?;
        let force = self.force;
        ask(&self.socket, &Request::Detach { pod, force })?;
        println!("the pod is not intercepted any more; `outrigger install` intercepts it again");
        Ok(())
    }
}
