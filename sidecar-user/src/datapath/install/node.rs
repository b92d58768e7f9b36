//! What one load of the programs has for all the pods that it serves: the maps that they share, and those by which a program
//! finds the maps of its pod. Attaches nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::Map as Loaded;
use sidecar_ebpf::abi::map;

use super::super::map::Map;
use super::super::{Error, sys};
use super::pins;

/// Maps that are one for all pods. Of the others each pod has its own.
pub(super) const SHARED: [&str; 3] = [map::ORIGIN, map::BYPASS, map::RINGS];

/// Gives a pod its number.
pub(super) struct Numbers {
    pods: Map<u64, u32>,
    /// For each map that a pod has, the one that has those of all pods.
    by_pod: Vec<(&'static str, Map<u32, RawFd>)>,
}

impl Numbers {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, Error> {
        let by_pod = map::BY_POD.map(|(own, all)| {
            let map = Map::new(all, Arc::new(map_fd(ebpf, all)?))?;
            Ok((own, map))
        });
        Ok(Self {
            pods: Map::new(map::PODS, Arc::new(map_fd(ebpf, map::PODS)?))?,
            by_pod: by_pod.into_iter().collect::<Result<_, Error>>()?,
        })
    }

    /// The pod in the network namespace of that cookie has that number, and these maps. The programs find the pod last, so
    /// that they see all of its maps or none.
    pub(super) fn admit(
        &self,
        number: u32,
        netns: u64,
        maps: &[(&'static str, Arc<OwnedFd>)],
    ) -> Result<(), Error> {
        for (name, all) in &self.by_pod {
            let (_, map) = maps
                .iter()
                .find(|(own, _)| own == name)
                .ok_or(Error::Missing { kind: "map", name })?;
            all.set(&number, &map.as_raw_fd())?;
        }
        Ok(self.pods.set(&netns, &number)?)
    }
}

/// A pod's own map, as it is pinned.
pub(super) fn open(pins: &Path, name: &'static str) -> Result<OwnedFd, Error> {
    let pin = pins::map(pins, name);
    sys::open_pin(&pin).map_err(Error::path("pinned map", pin))
}

/// A descriptor of its own, which outlives the loader.
pub(super) fn map_fd(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, Error> {
    let data = match ebpf.map(name) {
        Some(
            Loaded::Array(data)
            | Loaded::ArrayOfMaps(data)
            | Loaded::HashMap(data)
            | Loaded::LpmTrie(data)
            | Loaded::PerCpuArray(data)
            | Loaded::SkStorage(data)
            | Loaded::SockMap(data),
        ) => data,
        _ => return Err(Error::Missing { kind: "map", name }),
    };
    let clone: io::Result<OwnedFd> = data.fd().as_fd().try_clone_to_owned();
    clone.map_err(|source| Error::MapIo { map: name, source })
}
