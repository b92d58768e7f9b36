//! `check`: whether this host is fit to intercept, as the kernel door says, and what the agent of the node says of its pods. Printed,
//! one line a finding.

use std::io;
use std::path::Path;

use anyhow::{Context, ensure};

use super::status::facts::first_process;
use crate::datapath::{self, State};
use crate::observe::{PodList, PodStatus};
use crate::plugin;

/// Where an agent answers unless it is told otherwise.
const AGENT: &str = "/run/outrigger/agent-admin.sock";
/// As `observe::PodStatus` has it of pods that are not there any more.
const GONE: &str = "gone";

/// An error when something is missing, so that scripts can rely on the exit status; what is only degraded is none, nor is a pod that
/// waits. `agent`: one that has to be there.
pub(super) fn run(cgroup: Option<&Path>, netns: Option<&Path>, agent: Option<&Path>) -> anyhow::Result<()> {
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
        print(mark, finding.name, &finding.detail);
        if finding.state != State::Ok {
            remedy(finding.remedy);
        }
    }
    let said = pods(agent);
    for finding in findings.iter().filter(|f| !f.report.is_empty()) {
        println!("\n{}:\n{}", finding.name, finding.report);
    }
    let missing = findings.iter().filter(|f| f.state == State::Missing);
    let missing: Vec<&str> = missing.map(|f| f.name).collect();
    ensure!(
        missing.is_empty(),
        "this host is not fit for interception: {}",
        missing.join(", ")
    );
    said
}

/// A line for all pods, and one for each that is not as it should be.
fn pods(agent: Option<&Path>) -> anyhow::Result<()> {
    let socket = agent.unwrap_or(Path::new(AGENT));
    let said = match plugin::ask(socket, "/pods") {
        // Hosts without an agent have no pods of one.
        Err(error) if agent.is_none() && is_absent(&error) => return Ok(()),
        said => said.with_context(|| {
            format!(
                "no agent answers at {}; start one, or name its adminSocket",
                socket.display()
            )
        })?,
    };
    let (status, body) = said;
    ensure!(
        status == 200,
        "the agent at {} answers {status}: {}",
        socket.display(),
        body.trim_end()
    );
    let list: PodList = serde_json::from_str(&body)
        .with_context(|| format!("what answers at {} is no agent", socket.display()))?;
    let there: Vec<&PodStatus> = list.pods.iter().filter(|pod| pod.sidecar != GONE).collect();
    let troubled = there.iter().filter(|pod| !pod.problems.is_empty());
    match troubled.clone().count() {
        0 => print("ok", "pods", &format!("{} on this node, all served", there.len())),
        some => print(
            "degraded",
            "pods",
            &format!("{some} of {} on this node are not as they should be", there.len()),
        ),
    }
    for pod in troubled {
        for problem in &pod.problems {
            print("degraded", &pod.pod, &problem.what);
            remedy(&problem.remedy);
        }
    }
    Ok(())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::PermissionDenied
    )
}

fn print(mark: &str, name: &str, detail: &str) {
    println!(
        "{mark:<10}{name:<14}{}{detail}",
        if name.len() < 14 { "" } else { "  " }
    );
}

fn remedy(words: &str) {
    println!("          remedy: {words}");
}
