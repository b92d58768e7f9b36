//! `detach` and `check`: answers of the kernel door, printed.

use std::path::Path;

use crate::datapath;

pub(super) fn detach(pins: &Path) -> anyhow::Result<()> {
    for removed in datapath::detach(pins)? {
        println!("removed {}", removed.display());
    }
    Ok(())
}

/// One line a finding; an error when one of them is missing, so that scripts can rely on the exit status.
pub(super) fn check() -> anyhow::Result<()> {
    let findings = datapath::check();
    for finding in &findings {
        let mark = if finding.ok { "ok     " } else { "missing" };
        println!("{mark}  {:<14}{}", finding.name, finding.detail);
        if !finding.ok {
            println!("         remedy: {}", finding.remedy);
        }
    }
    let missing: Vec<&str> = findings.iter().filter(|f| !f.ok).map(|f| f.name).collect();
    anyhow::ensure!(
        missing.is_empty(),
        "this host is not fit for interception: {}",
        missing.join(", ")
    );
    Ok(())
}
