//! What the programs count. They alone write it, each CPU a number of its own.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use aya::maps::{Map, MapData, MapError, PerCpuArray};
use sidecar_ebpf::abi::{Counter, map};

use super::super::Error;

pub(super) struct Counters(Arc<PerCpuArray<MapData, u64>>);

impl Counters {
    /// Of a map that has been asked for its name, its kind and its sizes.
    pub(super) fn new(counters: OwnedFd) -> Result<Self, Error> {
        let array = MapData::from_fd(counters).and_then(|data| PerCpuArray::try_from(Map::PerCpuArray(data)));
        array.map(|array| Self(Arc::new(array))).map_err(failed)
    }

    pub(super) fn array(&self) -> Arc<PerCpuArray<MapData, u64>> {
        self.0.clone()
    }

    pub(super) fn read(&self) -> Result<Vec<(&'static str, u64)>, Error> {
        let sum = |(counter, name): &(Counter, &'static str)| {
            let by_cpu = self.0.get(&(*counter as u32), 0).map_err(failed)?;
            Ok((*name, by_cpu.iter().sum()))
        };
        Counter::ALL.iter().map(sum).collect()
    }
}

fn failed(source: MapError) -> Error {
    Error::Map {
        map: map::COUNTERS,
        source,
    }
}
