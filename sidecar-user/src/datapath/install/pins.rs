//! The files below the pins directory: `links/<program>` and `maps/<map>`. They hold what they name in the kernel.
//!
//! Does not know what a link is attached to; `links` does.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{self, BPF_FS_MAGIC, FsType};
use sidecar_ebpf::abi::schema::TOGETHER;
use sidecar_ebpf::abi::{Settings, map};

use super::super::map::Map;
use super::super::session::settings;
use super::super::sys;
use super::super::{Error, versioned};
use super::generation;
use super::shape::Shape;

pub(in super::super) fn link(pins: &Path, program: &str) -> PathBuf {
    pins.join("links").join(program)
}

pub(in super::super) fn maps(pins: &Path) -> PathBuf {
    pins.join("maps")
}

pub(in super::super) fn map(pins: &Path, name: &str) -> PathBuf {
    maps(pins).join(versioned(name))
}

/// Refuses a directory that is not on a bpffs, or would not be.
pub fn require_bpffs(pins: &Path) -> Result<(), Error> {
    for existing in pins.ancestors() {
        match file_system(existing) {
            Ok(BPF_FS_MAGIC) => return Ok(()),
            Ok(_) => break,
            // Or would not be, once it is made.
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(Error::path("pins", existing)(error)),
        }
    }
    Err(Error::NotBpffs { path: pins.into() })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Makes the directories below the pins directory.
pub(super) fn prepare(pins: &Path) -> Result<(), Error> {
    require_bpffs(pins)?;
    for directory in [pins.join("links"), maps(pins)] {
        fs::create_dir_all(&directory).map_err(Error::path("pins", &directory))?;
    }
    Ok(())
}

pub(super) fn file_system(path: &Path) -> io::Result<FsType> {
    Ok(statfs::statfs(path)?.filesystem_type())
}

/// All pinned links: this version's, and those of hooks that it does not have.
pub(in super::super) fn links(pins: &Path) -> Result<Vec<PathBuf>, Error> {
    files(&pins.join("links"))
}

/// Whether any program is pinned here, so that connections are intercepted already.
pub(super) fn any_link(pins: &Path) -> bool {
    links(pins).is_ok_and(|links| !links.is_empty())
}

/// Who has attached what is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Former {
    /// Nobody, or a proxy that has ended.
    Gone,
    /// A proxy that goes on serving what it has begun, in the slots of this generation.
    Serving(usize),
}

/// What a connection on its way to the proxy needs, until it is there. A proxy that serves on goes on working with all of its
/// own, or with none.
const ON_THE_WAY: [&str; 4] = [map::PENDING, map::PRESENTED, map::LISTENERS, map::RINGS];

/// The maps that this version cannot work with as they are pinned, and has to make anew. Programs of an earlier proxy that
/// are still attached hold their maps themselves, so that nothing changes for them until they are replaced.
///
/// Those that are pinned elsewhere are not its own.
pub(super) fn to_renew(
    pins: &Path,
    wanted: &Settings,
    former: Former,
    elsewhere: &[&str],
) -> BTreeSet<&'static str> {
    let mut forgotten: BTreeSet<&str> = map::ALL
        .into_iter()
        .filter(|name| !elsewhere.contains(name) && !is_usable(pins, name))
        .collect();
    // A changed address or port is not written over: a program could read half of it.
    if !says_the_same(pins, wanted) {
        forgotten.insert(map::SETTINGS);
    }
    if matches!(former, Former::Serving(_)) && are_apart(&forgotten) {
        forgotten.extend(ON_THE_WAY);
        forgotten.insert(map::SETTINGS);
    }
    for group in TOGETHER {
        if group.iter().any(|name| forgotten.contains(name)) {
            forgotten.extend(group);
        }
    }
    forgotten
}

/// Whether connections on their way to the earlier proxy need its programs, because these know nothing of them.
pub(super) fn are_apart(renewed: &BTreeSet<&str>) -> bool {
    renewed.contains(map::ORIGIN) || ON_THE_WAY.iter().any(|name| renewed.contains(name))
}

/// Removes the maps of other versions, once no program works with them any more.
pub(super) fn forget_other_maps(pins: &Path) -> Result<(), Error> {
    let ours: BTreeSet<OsString> = map::ALL.map(|name| versioned(name).into()).into();
    remove_maps(pins, |name| !ours.contains(name)).map(drop)
}

/// Removes the pins whose names are chosen.
pub(super) fn remove_maps(pins: &Path, chosen: impl Fn(&OsString) -> bool) -> Result<Vec<PathBuf>, Error> {
    let mut removed = Vec::new();
    for file in files(&maps(pins))? {
        if file.file_name().is_some_and(|name| chosen(&name.into())) {
            removed.extend(remove_file(&file)?);
        }
    }
    Ok(removed)
}

/// Removes the directories, which have to be empty. Returns those that were there.
pub(super) fn remove_directories(pins: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut removed = Vec::new();
    let below = [pins.join("links"), maps(pins)].into_iter();
    let all = below.chain(generation::directories(pins)).chain([pins.into()]);
    for directory in all {
        match fs::remove_dir(&directory) {
            Ok(()) => removed.push(directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::path("pins", directory)(error)),
        }
    }
    Ok(removed)
}

/// The path, if there was a file to remove.
pub(super) fn remove_file(path: &Path) -> Result<Option<PathBuf>, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Some(path.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::path("pin", path)(error)),
    }
}

/// Sorted by name; none where there is no such directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = || -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(directory)?;
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<_>>()?;
        paths.sort();
        Ok(paths)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(Error::path("pins", directory)),
    }
}

pub(in super::super) fn is_usable(pins: &Path, name: &str) -> bool {
    sys::open_pin(&map(pins, name))
        .and_then(|map| sys::map_info(map.as_fd()))
        .is_ok_and(|info| Shape::of(name).is_of(&info))
}

/// The settings that the programs of a directory read, where this version can.
pub(in super::super) fn pinned_settings(pins: &Path) -> Option<Settings> {
    if !is_usable(pins, map::SETTINGS) {
        return None;
    }
    let settings = Map::pinned(map::SETTINGS, &map(pins, map::SETTINGS)).ok()?;
    settings::in_force(&settings).ok()
}

fn says_the_same(pins: &Path, wanted: &Settings) -> bool {
    pinned_settings(pins).is_some_and(|pinned| settings::same_pod(&pinned, wanted))
}
