//! How full the maps are that a pod's connections pass through on their way. Counts keys one by one, and no more than a map may have,
//! so that connections that come and go meanwhile cannot keep it counting.

use std::path::Path;

use bytemuck::Pod;
use sidecar_ebpf::abi::{Origin, PENDING_ENTRIES, PRESENTED_ENTRIES, Pending, Tuple, map};

use super::super::Error;
use super::super::map::Map;
use super::pins;

/// Of one map of a pod: where it is full, new connections are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    pub map: &'static str,
    pub entries: usize,
    pub size: usize,
}

/// Of what is pinned there.
pub fn fills(pins: &Path) -> Result<Vec<Fill>, Error> {
    Ok(vec![
        fill::<Pending>(pins, map::PENDING, PENDING_ENTRIES)?,
        fill::<Origin>(pins, map::PRESENTED, PRESENTED_ENTRIES)?,
    ])
}

fn fill<V: Pod>(pins: &Path, name: &'static str, size: usize) -> Result<Fill, Error> {
    let map: Map<Tuple, V> = Map::pinned(name, &pins::map(pins, name))?;
    let entries = map.count(size)?;
    Ok(Fill {
        map: name,
        entries,
        size,
    })
}
