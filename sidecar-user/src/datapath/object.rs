//! The compiled programs, and the loader that all users of them share.

use std::path::Path;

use aya::{Ebpf, EbpfLoader};
use sidecar_ebpf::abi::map;

use super::Error;

/// Built by `build.rs`; aligned, because it is parsed in place.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/outrigger-bpf"));

/// One page: what the ring buffer of the programs' log takes while nothing is logged.
const NO_LOGS: u32 = 4096;

/// Makes the maps, and prepares the programs. Maps that are pinned below `pins` are taken from there, others are
/// made and pinned; without `pins` everything dies with the returned value.
pub(super) fn load(pins: Option<&Path>, log: bool) -> Result<Ebpf, Error> {
    // aya-log's numbers: 0 is nothing, 4 is debug. Off, the verifier removes the log calls altogether.
    let level: u8 = if log { 4 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader.override_global(aya_log::LEVEL, &level, true);
    if !log {
        loader.map_max_entries("AYA_LOGS", NO_LOGS);
    }
    if let Some(pins) = pins {
        for name in map::ALL {
            loader.map_pin_path(name, pins.join(name));
        }
    }
    loader.load(OBJECT).map_err(|source| Error::Object { source })
}
