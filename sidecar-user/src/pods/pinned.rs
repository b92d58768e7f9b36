//! Whose is what is pinned below a directory? The kernel says to which cgroup the links belong, and which of them is gone.

use std::path::{Path, PathBuf};

use crate::datapath::{self, Place};
use crate::error_chain;

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
