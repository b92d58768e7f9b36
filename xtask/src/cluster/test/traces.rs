//! What a cluster that runs has on the machine, noted by number, so that its absence can be proved afterwards. A look at names alone
//! (`sweep.rs`) would overlook what has lost its name: a process that left its cgroup, a namespace that somebody still holds.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use harness::cgroup;
use harness::cluster::{self, Cluster, NAME};

use super::super::sweep::{self, Kind};

pub(super) struct Traces {
    /// With the time of their start, for numbers are used again.
    processes: BTreeSet<(i32, String)>,
    /// As in `/proc/<pid>/ns`: those of nodes and of pods. Mounts, links, routes and pinned objects live and die with them.
    namespaces: BTreeSet<String>,
}

impl Traces {
    /// Fails where a kind of trace is not seen at all: not to see it later would prove nothing.
    pub(super) fn of(cluster: &Option<Cluster>) -> Result<Self> {
        let cluster = cluster.as_ref().context("no cluster runs")?;
        let kinds: BTreeSet<Kind> = sweep::leftovers().iter().map(|leftover| leftover.kind).collect();
        let expected = [Kind::Process, Kind::Cgroup, Kind::NetworkNamespace, Kind::File];
        for kind in expected {
            ensure!(
                kinds.contains(&kind),
                "a cluster runs, and nobody sees its {kind:?}"
            );
        }
        for node in &cluster.nodes {
            let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", node.holder))?;
            ensure!(mounts.contains(NAME), "{} has no mount of its own", node.name);
        }
        let ours = own_namespaces();
        let processes: Vec<i32> = cgroup::processes(&cluster::cgroup()?)
            .into_iter()
            .map(nix::unistd::Pid::as_raw)
            .collect();
        let namespaces = processes.iter().flat_map(|pid| namespaces_of(&pid.to_string()));
        let namespaces: BTreeSet<_> = namespaces.filter(|namespace| !ours.contains(namespace)).collect();
        // Two of each node, and more of its pods.
        ensure!(
            namespaces.len() > 4,
            "the cluster's namespaces are not seen: {namespaces:?}"
        );
        Ok(Self {
            processes: processes.into_iter().filter_map(started).collect(),
            namespaces,
        })
    }

    pub(super) fn demand_none(&self) -> Result<()> {
        sweep::demand_nothing_left()?;
        let alive: Vec<_> = self
            .processes
            .iter()
            .filter(|(pid, start)| started(*pid).is_some_and(|(_, now)| now == *start))
            .collect();
        ensure!(alive.is_empty(), "processes of the cluster live on: {alive:?}");
        let entries = fs::read_dir("/proc")?.flatten();
        for pid in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            for namespace in namespaces_of(&pid) {
                ensure!(
                    !self.namespaces.contains(&namespace),
                    "process {pid} is in {namespace} of the cluster"
                );
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        for namespace in &self.namespaces {
            ensure!(
                !mounts.contains(namespace),
                "{namespace} of the cluster is still mounted"
            );
        }
        Ok(())
    }
}

fn own_namespaces() -> BTreeSet<String> {
    namespaces_of("self").collect()
}

fn namespaces_of(pid: &str) -> impl Iterator<Item = String> + use<> {
    let links = ["mnt", "net"].map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")));
    links
        .into_iter()
        .flatten()
        .map(|link| link.to_string_lossy().into_owned())
}

/// Nothing of a process that has ended, of which only its parent has not heard yet.
fn started(pid: i32) -> Option<(i32, String)> {
    const START: usize = 19;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let has_ended = matches!(fields.first(), Some(&("Z" | "X")));
    (!has_ended).then(|| fields.get(START).map(|start| (pid, (*start).to_owned())))?
}
