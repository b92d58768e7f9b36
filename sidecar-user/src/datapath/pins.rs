//! The files below the pins directory: `links/<program>` and `maps/<map>`. They hold what they name in the kernel.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{self, BPF_FS_MAGIC, FsType};
use sidecar_ebpf::abi::{
    APP_PORT_ENTRIES, APP_SOCKET_ENTRIES, AppPort, AppSocket, Bypass, COUNTER_SLOTS, HANDSHAKE_ENTRIES,
    HELD_ENTRIES, Held, LISTENER_SLOTS, MAX_SHARDS, Origin, POLICY_ENTRIES, PRESENTED_ENTRIES,
    Path as RoutePath, Policy, PolicyKey, ROUTE_ENTRIES, Settings, Tuple, map,
};
use sidecar_ebpf::addr::Ip;

use super::Error;
use super::links::HOOKS;
use super::settings;
use super::sys::{self, MapInfo};

pub(super) fn link(pins: &Path, program: &str) -> PathBuf {
    pins.join("links").join(program)
}

pub(super) fn maps(pins: &Path) -> PathBuf {
    pins.join("maps")
}

/// Makes the directories, after making sure that they are on a bpffs.
pub(super) fn prepare(pins: &Path) -> Result<(), Error> {
    let existing = pins.ancestors().find(|path| path.exists()).unwrap_or(pins);
    if file_system(existing).map_err(Error::path("pins", existing))? != BPF_FS_MAGIC {
        return Err(Error::NotBpffs { path: pins.into() });
    }
    for directory in [pins.join("links"), maps(pins)] {
        fs::create_dir_all(&directory).map_err(Error::path("pins", &directory))?;
    }
    Ok(())
}

pub(super) fn file_system(path: &Path) -> io::Result<FsType> {
    Ok(statfs::statfs(path)?.filesystem_type())
}

/// Whether any program is pinned here, so that connections are intercepted already.
pub(super) fn any_link(pins: &Path) -> bool {
    HOOKS.iter().any(|hook| link(pins, hook.program).exists())
}

/// Keeps the pinned maps if this version can work with them and they say the same; otherwise takes their pins
/// away. The attached programs hold the maps themselves, so that nothing changes until they are replaced.
pub(super) fn keep_or_forget_maps(pins: &Path, wanted: &Settings) -> Result<(), Error> {
    let directory = maps(pins);
    if are_reusable(&directory, wanted) {
        return Ok(());
    }
    for name in map::ALL {
        remove_file(&directory.join(name))?;
    }
    Ok(())
}

fn are_reusable(directory: &Path, wanted: &Settings) -> bool {
    let open = |name: &str| sys::open_pin(&directory.join(name));
    let shapes_agree = map::ALL.iter().all(|name| {
        open(name)
            .and_then(|map| sys::map_info(map.as_fd()))
            .is_ok_and(|info| has_shape(&info, shape(name)))
    });
    // A changed address or port is not written over: a program could read half of it.
    shapes_agree
        && open(map::SETTINGS)
            .and_then(|map| sys::map_get::<u32, Settings>(map.as_fd(), &0))
            .is_ok_and(|pinned| settings::same_pod(&pinned, wanted))
}

/// Sizes of key, value and map, as `sidecar-ebpf` declares them.
pub(super) fn shape(name: &str) -> [u32; 3] {
    let sizes = match name {
        map::ORIGIN => [size_of::<i32>(), size_of::<Origin>(), 0],
        map::HANDSHAKE => [size_of::<Tuple>(), size_of::<Origin>(), HANDSHAKE_ENTRIES],
        map::HELD => [size_of::<Tuple>(), size_of::<Held>(), HELD_ENTRIES],
        map::APPROVED => [size_of::<Tuple>(), size_of::<u32>(), HELD_ENTRIES],
        map::PRESENTED => [size_of::<Tuple>(), size_of::<Origin>(), PRESENTED_ENTRIES],
        map::APP_PORTS => [size_of::<u32>(), size_of::<AppPort>(), APP_PORT_ENTRIES],
        map::APP_SOCKETS => [size_of::<u64>(), size_of::<AppSocket>(), APP_SOCKET_ENTRIES],
        map::INHERITED => [size_of::<u32>(), size_of::<AppPort>(), APP_PORT_ENTRIES],
        // A prefix's key begins with its length.
        map::POLICY => [
            size_of::<u32>() + size_of::<PolicyKey>(),
            size_of::<Policy>(),
            POLICY_ENTRIES,
        ],
        map::ROUTES => [
            size_of::<u32>() + size_of::<Ip>(),
            size_of::<RoutePath>(),
            ROUTE_ENTRIES,
        ],
        map::RINGS => [size_of::<u32>(), size_of::<u32>(), MAX_SHARDS],
        map::BYPASS => [size_of::<i32>(), size_of::<Bypass>(), 0],
        map::LISTENERS => [size_of::<u32>(), size_of::<u32>(), LISTENER_SLOTS],
        map::SETTINGS => [size_of::<u32>(), size_of::<Settings>(), 1],
        map::COUNTERS => [size_of::<u32>(), size_of::<u64>(), COUNTER_SLOTS],
        _ => [0; 3],
    };
    sizes.map(|size| u32::try_from(size).expect("maps are small"))
}

fn has_shape(info: &MapInfo, shape: [u32; 3]) -> bool {
    [info.key_size, info.value_size, info.max_entries] == shape
}

/// Removes what was pinned below the directory, and the directory. Connections of the pod are no longer
/// intercepted once this returns. Returns what it removed; a directory that is not there holds nothing.
pub fn detach(pins: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut removed = Vec::new();
    // What redirects goes first, so that no connection is sent to a proxy that cannot tell where it belongs.
    for hook in HOOKS.iter().rev() {
        let pin = link(pins, hook.program);
        if let Ok(link) = sys::open_pin(&pin) {
            sys::link_detach(link.as_fd()).map_err(Error::path("pinned link", &pin))?;
        }
        removed.extend(remove_file(&pin)?);
    }
    for name in map::ALL {
        removed.extend(remove_file(&maps(pins).join(name))?);
    }
    for directory in [pins.join("links"), maps(pins), pins.to_path_buf()] {
        match fs::remove_dir(&directory) {
            Ok(()) => removed.push(directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::path("pins", directory)(error)),
        }
    }
    Ok(removed)
}

/// The path, if there was a file to remove.
fn remove_file(path: &Path) -> Result<Option<PathBuf>, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Some(path.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::path("pin", path)(error)),
    }
}
