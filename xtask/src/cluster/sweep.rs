//! Takes a cluster away, be it whole, half made, or left by a run that was killed; and says what is left of one.
//!
//! Processes are ended by their cgroup, in which nothing but the cluster's is. What the nodes had mounted, pods' network namespaces
//! and pinned eBPF objects among it, were in mount namespaces that go with the last of these processes.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use harness::cluster::{self, DIRECTORY, NAME};
use harness::{cgroup, name};

/// Something of a cluster that is on the machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leftover {
    pub(super) kind: Kind,
    pub(super) what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Process,
    Cgroup,
    NetworkNamespace,
    Mount,
    File,
}

/// Removes everything; what is not there is no error.
pub(super) fn remove() {
    // Processes first: all else is busy as long as they live.
    name::remove(NAME);
    for hierarchy in hierarchies() {
        cgroup::remove_tree(&hierarchy.join(NAME));
    }
    let _ = fs::remove_dir_all(DIRECTORY);
}

pub(super) fn demand_nothing_left() -> Result<()> {
    let left = leftovers();
    let list: String = left.iter().map(|leftover| format!("\n  {leftover}")).collect();
    ensure!(
        left.is_empty(),
        "not everything of the cluster could be removed; run `cargo xtask cluster down` again:{list}"
    );
    Ok(())
}

/// All of it, by name.
pub(super) fn leftovers() -> Vec<Leftover> {
    let mut found = Vec::new();
    let mut add = |kind, what: String| found.push(Leftover { kind, what });
    for root in hierarchies().map(|hierarchy| hierarchy.join(NAME)) {
        for pid in cgroup::processes(&root) {
            let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            add(Kind::Process, format!("{pid} ({})", command.trim()));
        }
        if root.exists() {
            add(Kind::Cgroup, root.display().to_string());
        }
    }
    let stem = cluster::netns("");
    let namespaces = fs::read_dir(name::NETNS_DIR).into_iter().flatten().flatten();
    for path in namespaces.map(|entry| entry.path()) {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with(&stem) {
            add(Kind::NetworkNamespace, name);
        }
    }
    for line in fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
    {
        if line.contains(NAME) {
            add(Kind::Mount, line.to_owned());
        }
    }
    if Path::new(DIRECTORY).exists() {
        add(Kind::File, DIRECTORY.into());
    }
    found
}

/// Where the hierarchies of cgroups are mounted: one on a machine of version 2, one for each controller beside it on a hybrid one.
pub(super) fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (target, kind) = (fields.next()?, fields.next()?);
            matches!(kind, "cgroup" | "cgroup2").then(|| target.into())
        })
        .collect();
    found.into_iter()
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Process => "process",
            Kind::Cgroup => "cgroup",
            Kind::NetworkNamespace => "network namespace",
            Kind::Mount => "mount",
            Kind::File => "files in",
        };
        write!(f, "{kind} {}", self.what)
    }
}
