//! `detach` and `check`: answers of the kernel door, printed.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::install::{ask, wanted};
use super::status::facts::first_process;
use crate::datapath::{self, State};
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

/// One line a finding, and at the end what the kernel says about refused programs. An error when something is missing,
/// so that scripts can rely on the exit status; what is only degraded is none.
pub(super) fn check(cgroup: Option<&Path>, netns: Option<&Path>) -> anyhow::Result<()> {
    // The programs of a cgroup may all be in another network namespace than this command.
    let found = || Some(format!("/proc/{}/ns/net", first_process(cgroup?)?).into());
    let netns = netns.map(Path::to_owned).or_else(found);
    let findings = datapath::check(cgroup, netns.as_deref());
    for finding in &findings {
        let mark = match finding.state {
            State::Ok => "ok",
            State::Degraded => "degraded",
            State::Missing => "missing",
        };
        println!("{mark:<10}{:<14}{}", finding.name, finding.detail);
        if finding.state != State::Ok {
            println!("          remedy: {}", finding.remedy);
        }
    }
    for finding in findings.iter().filter(|f| !f.report.is_empty()) {
        println!("\n{}:\n{}", finding.name, finding.report);
    }
    let missing = findings.iter().filter(|f| f.state == State::Missing);
    let missing: Vec<&str> = missing.map(|f| f.name).collect();
    anyhow::ensure!(
        missing.is_empty(),
        "this host is not fit for interception: {}",
        missing.join(", ")
    );
    Ok(())
}
