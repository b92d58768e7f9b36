//! What is attached, really: asks the kernel about every link that is pinned in a directory. Changes nothing; `links.rs`
//! attaches, `pins.rs` removes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aya::programs::loaded_programs;
use nix::sys::statfs::BPF_FS_MAGIC;
pub use sidecar_ebpf::abi::ABI_VERSION;
use sidecar_ebpf::abi::{Settings, map, program};

use super::super::map::Map;
use super::super::{Error, sys};
use super::links::{CONTROL, HOOKS};
use super::pins;

/// What a directory of pins holds.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Every hook that this version attaches.
    pub hooks: Vec<Hook>,
    /// Of the control path, where the proxy of the pod may not call bpf(2).
    pub control: Hook,
    /// Of the maps that the programs use; `None` where there are none, or those of a version that laid them out otherwise.
    pub abi: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct Hook {
    pub program: &'static str,
    pub place: Place,
    /// When the link was pinned, which the file system remembers.
    pub since: Option<SystemTime>,
    /// The program that the link holds now, which a later proxy may have put there.
    pub loaded: Option<Loaded>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// By the inode of its directory.
    Cgroup(u64),
    /// By its inode.
    Netns(u32),
    /// The kernel has cut the link: its cgroup or namespace is gone, or somebody has detached it.
    Gone,
    /// Nothing is pinned under this name.
    Absent,
    /// The pin cannot be asked.
    Unknown(String),
}

/// A program in the kernel.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub id: u32,
    pub at: Option<SystemTime>,
    pub by_uid: Option<u32>,
}

impl Hook {
    /// `sk_lookup` hangs on a network namespace, everything else on a cgroup.
    pub fn is_of_netns(&self) -> bool {
        self.program == program::SK_LOOKUP
    }
}

/// Looks at the pins. A directory that is not there, on a bpffs, holds nothing; elsewhere it is an error, because pins that
/// were there are gone with their file system.
pub fn attached(pins: &Path) -> Result<Attached, Error> {
    let existing = pins.ancestors().find(|path| path.exists()).unwrap_or(pins);
    if pins::file_system(existing).map_err(Error::path("pins", existing))? != BPF_FS_MAGIC {
        return Err(Error::NotBpffs { path: pins.into() });
    }
    let programs: HashMap<u32, Loaded> = loaded_programs()
        .filter_map(Result::ok)
        .map(|info| {
            let loaded = Loaded {
                id: info.id(),
                at: info.loaded_at(),
                by_uid: info.created_by_uid(),
            };
            (info.id(), loaded)
        })
        .collect();
    let hooks = HOOKS.iter().map(|hook| look(pins, hook.program, &programs));
    Ok(Attached {
        hooks: hooks.collect(),
        control: look(pins, CONTROL.program, &programs),
        abi: abi(pins),
    })
}

fn look(pins: &Path, program: &'static str, programs: &HashMap<u32, Loaded>) -> Hook {
    let pin = pins::link(pins, program);
    let found = sys::open_pin(&pin).and_then(|link| sys::link_info(link.as_fd()));
    let (place, loaded) = match found {
        Ok(info) => (place(info.target()), Some(info.program)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Place::Absent, None),
        Err(error) => (Place::Unknown(format!("{}: {error}", pin.display())), None),
    };
    Hook {
        program,
        since: fs::symlink_metadata(&pin).and_then(|file| file.modified()).ok(),
        // Without CAP_SYS_ADMIN the kernel tells nobody more than the number.
        loaded: loaded.map(|id| {
            programs.get(&id).cloned().unwrap_or(Loaded {
                id,
                at: None,
                by_uid: None,
            })
        }),
        place,
    }
}

fn place(target: sys::Target) -> Place {
    match target {
        sys::Target::Cgroup(0) | sys::Target::Netns(0) => Place::Gone,
        sys::Target::Cgroup(id) => Place::Cgroup(id),
        sys::Target::Netns(inode) => Place::Netns(inode),
        sys::Target::Other(kind) => Place::Unknown(format!("a link of kind {kind}")),
    }
}

fn abi(pins: &Path) -> Option<u32> {
    let settings: Map<u32, Settings> = Map::pinned(map::SETTINGS, &pins::map(pins, map::SETTINGS)).ok()?;
    settings.get(&0).ok()?.map(|settings| settings.abi)
}

/// The directory of the cgroup with this inode, anywhere below a cgroup2 mount.
pub fn cgroup_of(id: u64) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let at = PathBuf::from(fields.next()?);
        (fields.next() == Some("cgroup2"))
            .then(|| find(&at, id))
            .flatten()
    })
}

fn find(directory: &Path, id: u64) -> Option<PathBuf> {
    if cgroup_id(directory).is_ok_and(|found| found == id) {
        return Some(directory.into());
    }
    let below = fs::read_dir(directory).ok()?.flatten();
    below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .find_map(|entry| find(&entry.path(), id))
}

/// By which the kernel names the cgroup at this path.
pub fn cgroup_id(path: &Path) -> io::Result<u64> {
    File::open(path)?.metadata().map(|directory| directory.ino())
}
