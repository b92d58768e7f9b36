//! Whose is what is pinned below a directory? The kernel says to which cgroup the links belong, and which of them is gone.

use std::fs;
use std::path::{Path, PathBuf};

use super::PodUid;
use crate::datapath::{self, Place, detach};
use crate::error_chain;

/// Below the directory of a node's agent: what sidecars have pinned that attach by themselves.
pub const SELF_ATTACHED: &str = "self";

/// The cgroup that pinned links are attached to. `None`: it is gone.
pub fn cgroup_of(pins: &Path) -> Result<Option<PathBuf>, String> {
    let attached = datapath::attached(pins).map_err(|error| error_chain(&error))?;
    // The last one stays also where somebody has taken the programs off.
    let hooks = attached.hooks.iter().chain([&attached.control]);
    let mut places = hooks.map(|hook| &hook.place);
    let id = places.find_map(|place| match place {
        Place::Cgroup(id) => Some(*id),
        _ => None,
    });
    let Some(id) = id else { return Ok(None) };
    match datapath::cgroup_of(id) {
        Some(path) => Ok(Some(path)),
        None => Err(format!(
            "the cgroup with inode {id} is below no mount that is seen here"
        )),
    }
}

/// Removes what is pinned in directories of `all`, each called by the UID of its pod, where the pod is gone. A sidecar that has begun to
/// attach has the lease of its directory, and keeps it; so does `own`.
pub fn sweep(all: &Path, own: Option<&PodUid>) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let (pins, name) = (entry.path(), entry.file_name());
        match name.to_str().map(str::parse::<PodUid>) {
            Some(Ok(uid)) if own != Some(&uid) => {}
            _ => continue,
        }
        match cgroup_of(&pins) {
            Ok(None) => match detach(&pins, false) {
                Ok(_) => {
                    tracing::info!(pins = %pins.display(), "what is pinned of a pod that is gone is removed")
                }
                Err(error) => {
                    tracing::debug!(pins = %pins.display(), error = error_chain(&error), "what is pinned stays")
                }
            },
            Ok(Some(_)) => {}
            // What cannot be asked may hold a pod closed.
            Err(error) => tracing::debug!(pins = %pins.display(), error, "what is pinned stays"),
        }
    }
}
