//! Where pods are: below the kubelet's directories, wherever on the cgroup2 hierarchy it keeps them, and in directories that
//! were configured, on hosts without Kubernetes. Looks anew each time; `watch.rs` sees them come.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use super::mounts::mounts;
use super::path::{Driver, Qos};
use super::role::Role;
use super::uid::PodUid;
use super::{Error, PodCgroup};

#[derive(Clone, Debug)]
pub struct Roots {
    /// Directories to search: what is mounted, without what is below the kubelet's directories.
    bases: Vec<PathBuf>,
    /// Whatever is in these is a pod.
    plain: Vec<PathBuf>,
}

/// A topmost `*kubepods*` directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    pub path: PathBuf,
    pub driver: Driver,
}

impl Roots {
    /// All of this host. Directories of pods made by hand need not exist yet.
    pub fn of_host(plain: &[PathBuf]) -> Result<Self, Error> {
        let all = mounts()?.into_iter();
        let bases = all
            .filter(|mount| !mount.is_below_kubepods())
            .map(|mount| mount.at);
        Self::below(bases.collect(), plain)
    }

    /// Only what is below these directories.
    pub fn below(bases: Vec<PathBuf>, plain: &[PathBuf]) -> Result<Self, Error> {
        let is_below = |path: &&PathBuf| !bases.iter().any(|base| path.starts_with(base));
        if let Some(outside) = plain.iter().find(is_below) {
            return Err(Error::NotCgroup2 {
                path: outside.clone(),
            });
        }
        Ok(Self {
            bases,
            plain: plain.into(),
        })
    }

    /// The directories to begin at, each with what it is.
    pub(super) fn starts(&self) -> Vec<(PathBuf, Vec<Role>)> {
        let roles = |base: &PathBuf| {
            let plain = self
                .plain
                .iter()
                .filter_map(|plain| plain.strip_prefix(base).ok());
            let toward = plain.map(|below| {
                let names = below.iter().map(|name| name.to_string_lossy().into_owned());
                Role::toward(names.collect())
            });
            [Role::Search(0)].into_iter().chain(toward).collect()
        };
        self.bases
            .iter()
            .map(|base| (base.clone(), roles(base)))
            .collect()
    }

    /// Each once, also where several mounts show it.
    pub fn kubepods(&self) -> Vec<Root> {
        let (mut roots, mut seen) = (Vec::new(), HashSet::new());
        for base in &self.bases {
            search(base, &Role::Search(0), &mut roots, &mut seen);
        }
        roots
    }

    /// The cgroup of a pod: where it is to be expected or, where its class is not known or not what it was, wherever there is
    /// just one of its name.
    pub fn pod(&self, uid: &PodUid, qos: Option<Qos>) -> Result<PodCgroup, Error> {
        let roots = self.kubepods();
        let exact = |root: &Root| Some(root.driver.directory(&root.path, uid, qos?));
        let mut found: Vec<_> = roots
            .iter()
            .filter_map(exact)
            .filter(|path| path.is_dir())
            .collect();
        if found.is_empty() {
            let name = format!("pod{uid}");
            for root in &roots {
                scan(&root.path, &name, 2, &mut found);
            }
        }
        if found.len() > 1 {
            return Err(Error::ManyCgroups {
                uid: uid.clone(),
                candidates: found,
            });
        }
        match found.pop() {
            Some(path) => PodCgroup::open(&path),
            None => Err(Error::NoPod {
                uid: uid.clone(),
                roots: roots.into_iter().map(|root| root.path).collect(),
            }),
        }
    }

    /// Whether a directory without a pod's name holds pods, and so is none.
    pub(super) fn are_below(&self, path: &Path) -> bool {
        let is_class = |root: &Root| path.parent() == Some(&root.path);
        let is_above = |root: &Root| root.path.starts_with(path);
        self.plain.iter().any(|plain| plain.starts_with(path))
            || self
                .kubepods()
                .iter()
                .any(|root| is_class(root) || is_above(root))
    }

    /// The pod made by hand that a path is in or below.
    pub(super) fn plain_pod(&self, path: &Path) -> Option<PathBuf> {
        self.plain.iter().find_map(|plain| {
            let name = path.strip_prefix(plain).ok()?.iter().next()?;
            Some(plain.join(name))
        })
    }
}

fn search(directory: &Path, role: &Role, roots: &mut Vec<Root>, seen: &mut HashSet<u64>) {
    for (path, name, id) in directories(directory) {
        match role.below(&name) {
            Some(Role::Kubepods) if seen.insert(id) => roots.push(Root {
                driver: Driver::of_root(&name),
                path,
            }),
            Some(below @ Role::Search(_)) => search(&path, &below, roots, seen),
            _ => {}
        }
    }
}

/// Directories so many levels below whose names contain this one.
fn scan(directory: &Path, pod: &str, levels: u8, found: &mut Vec<PathBuf>) {
    for (path, name, _) in directories(directory) {
        if name.replace('_', "-").contains(pod) {
            found.push(path);
        } else if levels > 1 {
            scan(&path, pod, levels - 1, found);
        }
    }
}

/// What cannot be read has been removed.
fn directories(directory: &Path) -> impl Iterator<Item = (PathBuf, String, u64)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (entry.path(), name, entry.ino())
        })
}
