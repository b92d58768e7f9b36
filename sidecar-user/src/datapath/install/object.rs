//! The compiled programs, and the loader that all users of them share.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use aya::maps::{Map, MapData};
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader};

use sidecar_ebpf::abi::{Owner, PROBE_PORTS, map, ring_slot};

use super::super::Error;

/// Built by `build.rs`; aligned, because it is parsed in place.
pub(in super::super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/outrigger-bpf"));

/// One page: what the ring buffer of the programs' log takes while nothing is logged.
const NO_LOGS: u32 = 4096;

/// What not every kernel can do, and interception can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    /// Showing an MPTCP client the address it asked for. Since 5.19.
    pub(super) mptcp: bool,
    /// Failing connect() with the errno of the routes instead of EPERM. Since 5.18.
    pub(super) retval: bool,
}

impl Features {
    /// Asks the kernel, not its version: what it was built with and what this process may do count too.
    pub(super) fn probe() -> Self {
        let has = |helper| is_helper_supported(ProgramType::CgroupSockAddr, helper).unwrap_or(false);
        Self {
            mptcp: has(BpfHelper::BPF_FUNC_skc_to_mptcp_sock),
            retval: has(BpfHelper::BPF_FUNC_set_retval),
        }
    }

    /// What applications notice of what is not there: the feature, the consequence and the remedy.
    pub(super) fn absent(self) -> impl Iterator<Item = [&'static str; 3]> {
        let mptcp = [
            "mptcp",
            "an MPTCP client is shown loopback addresses by getpeername() and getsockname()",
            "use Linux 5.19 or later with CONFIG_MPTCP",
        ];
        let retval = [
            "errno",
            "connect() without a route fails with EPERM instead of the errno of the routes",
            "use Linux 5.18 or later",
        ];
        let absent = [(self.mptcp, mptcp), (self.retval, retval)];
        absent
            .into_iter()
            .filter_map(|(there, told)| (!there).then_some(told))
    }
}

/// Makes the maps, with room for so many pods, and prepares the programs. `reused` are opened where they are pinned, or made
/// and pinned there; the others die with the returned value unless somebody pins them.
pub(super) fn load(
    features: Features,
    owner: Owner,
    pods: u32,
    reused: &[(&'static str, PathBuf)],
    log: bool,
) -> Result<Ebpf, Error> {
    // aya-log's numbers: 0 is nothing, 4 is debug. Off, the verifier removes the log calls altogether.
    let level: u8 = if log { 4 } else { 0 };
    let (mptcp, retval) = (u8::from(features.mptcp), u8::from(features.retval));
    let mut loader = EbpfLoader::new();
    loader.override_global(aya_log::LEVEL, &level, true);
    loader.override_global("FEATURE_MPTCP", &mptcp, true);
    loader.override_global("FEATURE_RETVAL", &retval, true);
    if !log {
        loader.map_max_entries("AYA_LOGS", NO_LOGS);
    }
    let owner: [u32; 3] = bytemuck::cast(owner);
    loader.override_global("OWNER", &owner, true);
    if pods > 1 {
        for (_, by_pod) in map::BY_POD {
            loader.map_max_entries(by_pod, pods);
        }
        loader.map_max_entries(map::RINGS, ring_slot(pods, 0));
        loader.map_max_entries(map::PROBES, pods * PROBE_PORTS as u32);
    }
    for (name, pin) in reused {
        loader.map_pin_path(name, pin);
    }
    loader.load(OBJECT).map_err(|source| Error::Object { source })
}

/// Of every kind of map that there is in the object.
pub(super) fn data<'a>(ebpf: &'a Ebpf, name: &str) -> Option<&'a MapData> {
    match ebpf.map(name)? {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::SockMap(data) => Some(data),
        _ => None,
    }
}

/// A descriptor of its own, which outlives the loader.
pub(super) fn map_fd(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, Error> {
    let data = data(ebpf, name).ok_or(Error::Missing { kind: "map", name })?;
    let clone: io::Result<OwnedFd> = data.fd().as_fd().try_clone_to_owned();
    clone.map_err(|source| Error::MapIo { map: name, source })
}
