//! Taking everything away that is attached and pinned below a directory, by whatever version.

use std::path::{Path, PathBuf};

use super::super::Error;
use super::lease::Lease;
use super::{links, pins};

/// Removes what was pinned below the directory, and the directory. Connections of the pod are no longer
/// intercepted once this returns. Returns what it removed; a directory that is not there holds nothing.
///
/// Refuses while a proxy has the directory, unless it is forced: then that proxy goes on without its hooks.
pub fn detach(pins: &Path, force: bool) -> Result<Vec<PathBuf>, Error> {
    // Elsewhere `links` and `maps` are anybody's files.
    if pins.exists() {
        pins::require_bpffs(pins)?;
    }
    // Kept to the end, so that no proxy starts in the middle.
    let _lease = match Lease::of_existing(pins) {
        Ok(Some(lease)) => Some(lease),
        Ok(None) => return Ok(Vec::new()),
        Err(Error::Owned { .. }) if force => None,
        Err(Error::Owned { pins, owner }) => return Err(Error::InUse { pins, owner }),
        Err(error) => return Err(error),
    };
    remove_all(pins)
}

/// As [`detach`], for the holder of the lease, which ends with it.
pub fn detach_own(lease: Lease) -> Result<Vec<PathBuf>, Error> {
    remove_all(lease.pins())
}

/// Takes the programs off a pod and leaves the maps that they work with, by which [`close_on`](super::close_on) puts them back: whoever
/// serves the pod keeps its session. Connections of the pod are no longer intercepted once this returns.
///
/// Refuses while a proxy has the directory, unless it is forced.
pub fn take_off(pins: &Path, force: bool) -> Result<(), Error> {
    let _lease = match Lease::of_existing(pins) {
        Err(Error::Owned { .. }) if force => None,
        Err(Error::Owned { pins, owner }) => return Err(Error::InUse { pins, owner }),
        taken => taken?,
    };
    links::remove_hooks(pins).map(drop)
}

/// For the holder of the lease.
pub(super) fn remove_all(pins: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut removed = links::remove_all(pins)?;
    removed.extend(pins::remove_maps(pins, |_| true)?);
    removed.extend(pins::remove_directories(pins)?);
    Ok(removed)
}
