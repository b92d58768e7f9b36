//! What a cluster that runs has on the machine, noted by number, so that its absence can be proved afterwards. A look at names alone
//! (`sweep.rs`) would overlook what has lost its name: a process that left its cgroup, a namespace that somebody still holds.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use harness::cgroup;
use harness::cluster::{self, Cluster, NAME};

use super::super::sweep::{self, Kind};

pub(super) struct Traces {
    /// All that are in the cluster's cgroup or in one of its namespaces, with the time of their start, for numbers are used again.
    processes: BTreeSet<(i32, String)>,
    /// Lines of our own mount table that hold one of its namespaces.
    mounts: BTreeSet<String>,
}

impl Traces {
    /// Fails where a kind of trace is not seen at all: not to see it later would prove nothing.
    pub(super) fn of(cluster: &Option<Cluster>) -> Result<Self> {
        let cluster = cluster.as_ref().context("no cluster runs")?;
        let kinds: BTreeSet<Kind> = sweep::leftovers().iter().map(|leftover| leftover.kind).collect();
        let expected = [
            Kind::Process,
            Kind::Cgroup,
            Kind::NetworkNamespace,
            Kind::Mount,
            Kind::File,
        ];
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
        let namespaces = namespaces_of_the_cluster()?;
        // Two of each node, and more of its pods.
        ensure!(
            namespaces.len() > 4,
            "the cluster's namespaces are not seen: {namespaces:?}"
        );
        // Namespaces live as long as somebody is in them or mounts them. The number of one that is gone is another's at once, so they
        // are followed by who holds them.
        let is_in = |pid: &String| namespaces_of(pid).any(|namespace| namespaces.contains(&namespace));
        let entries = fs::read_dir("/proc")?.flatten();
        let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let processes = pids.filter(is_in).filter_map(|pid| started(pid.parse().ok()?));
        let mounts = own_mounts()?.into_iter();
        Ok(Self {
            processes: processes.collect(),
            mounts: mounts
                .filter(|line| {
                    namespaces
                        .iter()
                        .any(|namespace| line.contains(namespace.as_str()))
                })
                .collect(),
        })
    }

    pub(super) fn demand_none(&self) -> Result<()> {
        sweep::demand_nothing_left()?;
        let alive: Vec<_> = self
            .processes
            .iter()
            .filter(|(pid, start)| started(*pid).is_some_and(|(_, now)| now == *start))
            .map(|(pid, _)| pid)
            .collect();
        ensure!(
            alive.is_empty(),
            "processes live on in the cluster's namespaces: {alive:?}"
        );
        let mounts = own_mounts()?;
        let mounted: Vec<_> = self.mounts.intersection(&mounts).collect();
        ensure!(
            mounted.is_empty(),
            "namespaces of the cluster are still mounted: {mounted:?}"
        );
        Ok(())
    }
}

/// Those of nodes and of pods, as in `/proc/<pid>/ns`. Mounts, links, routes and pinned objects live and die with them.
fn namespaces_of_the_cluster() -> Result<BTreeSet<String>> {
    let ours: BTreeSet<String> = namespaces_of("self").collect();
    let processes = cgroup::processes(&cluster::cgroup()?);
    let found = processes.iter().flat_map(|pid| namespaces_of(&pid.to_string()));
    Ok(found.filter(|namespace| !ours.contains(namespace)).collect())
}

fn own_mounts() -> Result<BTreeSet<String>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.lines().map(str::to_owned).collect())
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
