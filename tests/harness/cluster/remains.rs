//! What there is of Outrigger on a node, for a test that proves that nothing is: pins, sockets, processes, attached programs and
//! rules. Looks from outside of the node's pods, and removes nothing.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Cluster, cgroup, netns};
use crate::netns::Netns;
use crate::sys::{self, Place};
use crate::{cgroup as cgroups, netfilter};

/// With which the names of our programs in the kernel begin.
const PREFIX: &str = "or_";
const BINARIES: [&str; 2] = ["outrigger", "kubectl-outrigger"];

impl Cluster {
    /// One line for each thing.
    pub fn remains(&self, node: &str) -> Result<Vec<String>> {
        let node = self.node(node)?;
        let root = Path::new("/proc").join(node.holder.to_string()).join("root");
        let mut found = Vec::new();
        collect(&root.join("sys/fs/bpf/outrigger"), &mut found);
        let mut sockets = Vec::new();
        collect(&root.join("run/outrigger"), &mut sockets);
        let is_socket =
            |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        found.extend(sockets.into_iter().filter(is_socket));
        let mut remains: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();

        let cgroup = cgroup()?;
        let mut namespaces = vec![fs::metadata(format!("/proc/{}/ns/net", node.holder))?.ino()];
        for process in cgroups::processes(&cgroup) {
            let of = |file: &str| PathBuf::from(format!("/proc/{process}/{file}"));
            namespaces.extend(fs::metadata(of("ns/net")).map(|namespace| namespace.ino()));
            let program = fs::read_link(of("exe")).unwrap_or_default();
            if BINARIES.iter().any(|name| program.ends_with(name)) {
                remains.push(format!("process {process}: {}", program.display()));
            }
        }
        let cgroups = cgroups::numbers(&cgroup);
        for one in sys::attached()?
            .iter()
            .filter(|one| one.program.starts_with(PREFIX))
        {
            let is_here = match one.to {
                Place::Cgroup(number) => cgroups.contains(&number),
                Place::Netns(number) => namespaces.contains(&number),
                Place::Other => false,
            };
            if is_here {
                remains.push(format!("program {} is attached to {:?}", one.program, one.to));
            }
        }
        let tables = netfilter::tables(&Netns::open(&netns(&node.name))?)?;
        if tables > 0 {
            remains.push(format!("{tables} tables of netfilter rules"));
        }
        Ok(remains)
    }
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) {
    if fs::symlink_metadata(path).is_ok() {
        found.push(path.into());
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        collect(&entry.path(), found);
    }
}
