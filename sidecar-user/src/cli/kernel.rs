//! `detach` and `check`: answers of the kernel door, printed.

use std::path::Path;

use super::status::facts::first_process;
use crate::datapath::{self, State};

pub(super) fn detach(pins: &Path, force: bool) -> anyhow::Result<()> {
    for removed in datapath::detach(pins, force)? {
        println!("removed {}", removed.display());
    }
    Ok(())
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
