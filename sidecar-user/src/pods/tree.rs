//! The directories that are watched, and the pods in them. An inotify event only says where to look again: what is there is
//! compared with what was, so that an event too many, too few or too late changes nothing in the end.
//!
//! A directory is watched before it is listed, so that what is made in between is seen by the one or the other.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::cgroup::{inside, is_removed, open_directory};
use super::event::Event;
use super::role::Role;
use super::{Error, PodCgroup};

/// By their ids, which the kernel gives once.
#[derive(Default)]
pub(super) struct Tree {
    nodes: HashMap<u64, Node>,
    watches: HashMap<WatchDescriptor, u64>,
    /// To be looked at.
    dirty: BTreeSet<u64>,
}

struct Node {
    path: PathBuf,
    watch: WatchDescriptor,
    kind: Kind,
}

enum Kind {
    Directory {
        roles: Vec<Role>,
        children: HashSet<u64>,
    },
    Pod {
        cgroup: PodCgroup,
        is_populated: bool,
    },
}

impl Tree {
    pub(super) fn pods(&self) -> impl Iterator<Item = &PodCgroup> {
        self.nodes.values().filter_map(|node| match &node.kind {
            Kind::Pod { cgroup, .. } => Some(cgroup),
            Kind::Directory { .. } => None,
        })
    }

    /// Begins to watch a directory that stays.
    pub(super) fn start(&mut self, inotify: &Inotify, path: &Path, roles: Vec<Role>) -> Result<(), Error> {
        let directory = open_directory(path).map_err(Error::path("cgroup", path))?;
        self.adopt_directory(inotify, &directory, path, roles).map(drop)
    }

    /// Begins to watch a pod wherever it is, until it is removed.
    pub(super) fn follow(&mut self, inotify: &Inotify, pod: &Path) -> Result<(), Error> {
        let (Some(above), Some(name)) = (pod.parent(), pod.file_name()) else {
            return Ok(());
        };
        let role = Role::Above(name.to_string_lossy().into());
        let directory = open_directory(above).map_err(Error::path("cgroup", above))?;
        let id = directory.metadata().map_err(Error::path("cgroup", above))?.ino();
        match self.nodes.get_mut(&id).map(|node| &mut node.kind) {
            Some(Kind::Directory { roles, .. }) => {
                if !roles.contains(&role) {
                    roles.push(role);
                }
                self.dirty.insert(id);
            }
            // A pod is in no other.
            Some(Kind::Pod { .. }) => {}
            None => {
                self.adopt_directory(inotify, &directory, above, vec![role])?;
            }
        }
        Ok(())
    }

    pub(super) fn mark(&mut self, event: &InotifyEvent) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            self.dirty.extend(self.nodes.keys());
        } else if let Some(id) = self.watches.get(&event.wd) {
            self.dirty.insert(*id);
        }
    }

    /// Looks at all that is marked, and below. What fails stays marked, and keeps nobody else from being looked at.
    pub(super) fn look(&mut self, inotify: &Inotify, events: &mut VecDeque<Event>) -> Result<(), Error> {
        let (mut failed, mut answer) = (BTreeSet::new(), Ok(()));
        while let Some(id) = self.dirty.pop_first() {
            if let Err(error) = self.look_at(id, inotify, events) {
                failed.insert(id);
                answer = answer.and(Err(error));
            }
        }
        self.dirty = failed;
        answer
    }

    fn look_at(&mut self, id: u64, inotify: &Inotify, events: &mut VecDeque<Event>) -> Result<(), Error> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        match &mut node.kind {
            Kind::Pod { cgroup, is_populated } => {
                // Removed: the directory above says so.
                let now = cgroup.is_populated()?.unwrap_or(false);
                let was = std::mem::replace(is_populated, now);
                match (was, now) {
                    // Also where it was populated before: in between it may have been empty.
                    (_, true) => events.push_back(Event::Populated(cgroup.clone())),
                    (true, false) => events.push_back(Event::Emptied(cgroup.clone())),
                    (false, false) => {}
                }
                Ok(())
            }
            Kind::Directory { roles, children } => {
                let listed = list(&node.path, id, roles)?;
                let is_listed: HashSet<u64> = listed.iter().map(|child| child.id).collect();
                let gone: Vec<u64> = children.difference(&is_listed).copied().collect();
                let come = listed.into_iter().filter(|child| !children.contains(&child.id));
                let come: Vec<_> = come.collect();
                for child in gone {
                    self.not_above(id, child);
                    self.forget(id, child, inotify, events);
                }
                let mut answer = Ok(());
                for child in come {
                    answer = answer.and(self.adopt(id, child, inotify, events));
                }
                answer
            }
        }
    }

    /// A pod that was asked for is gone: one that has its name later is to be asked for again.
    fn not_above(&mut self, id: u64, pod: u64) {
        let name = self.nodes.get(&pod).and_then(|pod| pod.path.file_name());
        let Some(name) = name.map(|name| name.to_string_lossy().into_owned()) else {
            return;
        };
        if let Some(Kind::Directory { roles, .. }) = self.nodes.get_mut(&id).map(|node| &mut node.kind) {
            roles.retain(|role| *role != Role::Above(name.clone()));
        }
    }

    fn adopt(
        &mut self,
        parent: u64,
        child: Child,
        inotify: &Inotify,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Error> {
        let directory = match open_directory(&child.path) {
            Ok(directory) => directory,
            Err(error) if is_removed(&error) => return Ok(()),
            Err(source) => return Err(Error::path("cgroup", &child.path)(source)),
        };
        let id = directory.metadata().map(|found| found.ino());
        // Made anew meanwhile, of which an event is on its way; or seen through another mount.
        if id.ok() != Some(child.id) || self.nodes.contains_key(&child.id) {
            return Ok(());
        }
        let is_adopted = if child.roles.contains(&Role::Pod) {
            self.adopt_pod(inotify, directory, &child, events)?
        } else {
            self.adopt_directory(inotify, &directory, &child.path, child.roles)?
        };
        if is_adopted
            && let Some(Kind::Directory { children, .. }) = self.nodes.get_mut(&parent).map(|n| &mut n.kind)
        {
            children.insert(child.id);
        }
        Ok(())
    }

    fn adopt_directory(
        &mut self,
        inotify: &Inotify,
        directory: &File,
        path: &Path,
        roles: Vec<Role>,
    ) -> Result<bool, Error> {
        let id = directory.metadata().map_err(Error::path("cgroup", path))?.ino();
        if self.nodes.contains_key(&id) {
            return Ok(false);
        }
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ONLYDIR;
        let Some(watch) = add_watch(inotify, &inside(directory), flags, path)? else {
            return Ok(false);
        };
        let kind = Kind::Directory {
            roles,
            children: HashSet::new(),
        };
        self.insert(id, path, watch, kind);
        Ok(true)
    }

    fn adopt_pod(
        &mut self,
        inotify: &Inotify,
        directory: File,
        child: &Child,
        events: &mut VecDeque<Event>,
    ) -> Result<bool, Error> {
        let cgroup = PodCgroup::of_directory(directory, child.path.clone())?;
        let at = cgroup.inside("cgroup.events");
        let Some(watch) = add_watch(inotify, &at, AddWatchFlags::IN_MODIFY, &child.path)? else {
            return Ok(false);
        };
        events.push_back(Event::Appeared(cgroup.clone()));
        let kind = Kind::Pod {
            cgroup,
            is_populated: false,
        };
        self.insert(child.id, &child.path, watch, kind);
        Ok(true)
    }

    fn insert(&mut self, id: u64, path: &Path, watch: WatchDescriptor, kind: Kind) {
        self.watches.insert(watch, id);
        let path = path.into();
        self.nodes.insert(id, Node { path, watch, kind });
        self.dirty.insert(id);
    }

    fn forget(&mut self, parent: u64, id: u64, inotify: &Inotify, events: &mut VecDeque<Event>) {
        if let Some(Kind::Directory { children, .. }) = self.nodes.get_mut(&parent).map(|n| &mut n.kind) {
            children.remove(&id);
        }
        self.dirty.remove(&id);
        let Some(node) = self.nodes.remove(&id) else {
            return;
        };
        self.watches.remove(&node.watch);
        // The kernel drops the watch of a directory with it, but keeps that of a file in it.
        let _ = inotify.rm_watch(node.watch);
        match node.kind {
            Kind::Pod { cgroup, .. } => events.push_back(Event::Gone(cgroup)),
            Kind::Directory { children, .. } => {
                for child in children {
                    self.forget(id, child, inotify, events);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn watched(&self) -> usize {
        assert_eq!(self.nodes.len(), self.watches.len());
        self.nodes.len()
    }
}

struct Child {
    id: u64,
    path: PathBuf,
    roles: Vec<Role>,
}

/// The directories in it in which pods can be. None where another directory has its path by now.
fn list(path: &Path, id: u64, roles: &[Role]) -> Result<Vec<Child>, Error> {
    let read = || -> io::Result<Vec<fs::DirEntry>> {
        let directory = open_directory(path)?;
        if directory.metadata()?.ino() != id {
            return Ok(Vec::new());
        }
        fs::read_dir(inside(&directory))?.collect()
    };
    let entries = match read() {
        Ok(entries) => entries,
        Err(error) if is_removed(&error) => Vec::new(),
        Err(source) => return Err(Error::path("cgroup", path)(source)),
    };
    let directories = entries
        .into_iter()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let children = directories.map(|entry| {
        let name = entry.file_name();
        let named = name.to_string_lossy();
        let mut below: Vec<Role> = roles.iter().filter_map(|role| role.below(&named)).collect();
        below.dedup();
        Child {
            id: entry.ino(),
            path: path.join(&name),
            roles: below,
        }
    });
    Ok(children.filter(|child| !child.roles.is_empty()).collect())
}

/// `None`: it has been removed.
fn add_watch(
    inotify: &Inotify,
    at: &Path,
    flags: AddWatchFlags,
    path: &Path,
) -> Result<Option<WatchDescriptor>, Error> {
    match inotify.add_watch(at, flags) {
        Ok(watch) => Ok(Some(watch)),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(Error::Watch {
            path: path.into(),
            source: errno.into(),
        }),
    }
}
