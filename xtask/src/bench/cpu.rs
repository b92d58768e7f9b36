//! CPU time of everything in the pods: generator, sidecars, server, and the kernel's work in their names. Does not
//! tell one from the other.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::topology::Topology;

/// The counter of the cgroup that all pods are in. It is exact while they are silent: what runs is charged when it
/// stops.
#[derive(Debug)]
pub(super) struct Meter {
    path: PathBuf,
}

impl Meter {
    pub(super) fn of(topology: &Topology) -> Result<Self> {
        let pod = topology.direct.client.cgroup();
        let fabric = pod.parent().context("a pod's cgroup has a parent")?;
        Ok(Self {
            path: fabric.join("cpu.stat"),
        })
    }

    /// Nanoseconds since the pods were made.
    pub(super) fn read(&self) -> Result<f64> {
        let text = fs::read_to_string(&self.path).with_context(|| format!("read {}", self.path.display()))?;
        parse(&text).with_context(|| format!("{} has no usage_usec", self.path.display()))
    }
}

fn parse(stat: &str) -> Option<f64> {
    let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    Some(usage.trim().parse::<f64>().ok()? * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_the_whole_not_its_split() {
        let stat = "usage_usec 125\nuser_usec 25\nsystem_usec 100\n";
        assert_eq!(parse(stat), Some(125_000.0));
        assert_eq!(parse("user_usec 25\n"), None);
    }
}
