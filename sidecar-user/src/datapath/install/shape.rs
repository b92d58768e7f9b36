//! What the maps are made like, as `sidecar-ebpf` declares them: whether one that is pinned can be used again.

use sidecar_ebpf::abi::control::{Answer, Secret};
use sidecar_ebpf::abi::{
    APP_PORT_SLOTS, APP_SOCKET_ENTRIES, AppPorts, AppSocket, Bypass, COUNTER_ROWS, COUNTER_SLOTS,
    HOST_ADDRESSES, INHERITED_SLOTS, Inherited, LISTENER_SLOTS, Origin, PENDING_ENTRIES, POLICY_ENTRIES,
    PRESENTED_ENTRIES, PROBE_PORTS, Path, Pending, Policy, PolicyKey, ProbePort, ROUTE_ENTRIES, SHARD_SLOTS,
    Settings, Tuple, Watched, map,
};
use sidecar_ebpf::addr::Ip;

use super::super::sys::MapInfo;

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const LPM_TRIE: u32 = 11;
const ARRAY_OF_MAPS: u32 = 12;
const SOCKMAP: u32 = 15;
const SK_STORAGE: u32 = 24;

/// Memory is taken when an entry is.
const NO_PREALLOC: u32 = 1;
/// Read by mmap(2).
const MMAPABLE: u32 = 1 << 10;

/// Of `struct bpf_map_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Shape {
    pub(in super::super) kind: u32,
    pub(in super::super) key: u32,
    pub(in super::super) value: u32,
    pub(in super::super) entries: u32,
    pub(in super::super) flags: u32,
}

impl Shape {
    /// Of a map by its name. A prefix's key begins with its length.
    pub(in super::super) fn of(name: &str) -> Self {
        const PREFIX: usize = size_of::<u32>();
        const INDEX: usize = size_of::<u32>();
        const SOCKET: usize = size_of::<i32>();
        let hash = |key, value, entries| Self::new(HASH, [key, value, entries], NO_PREALLOC);
        let array = |value, entries| Self::new(ARRAY, [INDEX, value, entries], 0);
        let mapped = |value, entries| Self::new(ARRAY, [INDEX, value, entries], MMAPABLE);
        let trie = |key, value, entries| Self::new(LPM_TRIE, [PREFIX + key, value, entries], NO_PREALLOC);
        let storage = |value| Self::new(SK_STORAGE, [SOCKET, value, 0], NO_PREALLOC);
        match name {
            map::ORIGIN => storage(size_of::<Origin>()),
            map::BYPASS => storage(size_of::<Bypass>()),
            map::WATCHED => storage(size_of::<Watched>()),
            map::PENDING => hash(size_of::<Tuple>(), size_of::<Pending>(), PENDING_ENTRIES),
            map::PRESENTED => hash(size_of::<Tuple>(), size_of::<Origin>(), PRESENTED_ENTRIES),
            map::APP_PORTS => mapped(size_of::<AppPorts>(), APP_PORT_SLOTS),
            map::APP_SOCKETS => hash(size_of::<u64>(), size_of::<AppSocket>(), APP_SOCKET_ENTRIES),
            map::INHERITED => mapped(size_of::<Inherited>(), INHERITED_SLOTS),
            map::POLICY => trie(size_of::<PolicyKey>(), size_of::<Policy>(), POLICY_ENTRIES),
            map::ROUTES => trie(size_of::<Ip>(), size_of::<Path>(), ROUTE_ENTRIES),
            map::RINGS => Self::new(ARRAY_OF_MAPS, [INDEX, size_of::<u32>(), SHARD_SLOTS], 0),
            map::LISTENERS => Self::new(SOCKMAP, [INDEX, size_of::<u32>(), LISTENER_SLOTS], 0),
            map::SETTINGS => mapped(size_of::<Settings>(), 1),
            map::COUNTERS => mapped(size_of::<u64>(), COUNTER_ROWS * COUNTER_SLOTS),
            map::SECRET => array(size_of::<Secret>(), 1),
            map::ANSWERS => storage(size_of::<Answer>()),
            map::HOST => hash(size_of::<Ip>(), size_of::<u32>(), HOST_ADDRESSES),
            map::PROBES => hash(size_of::<ProbePort>(), size_of::<u32>(), PROBE_PORTS),
            _ => Self::new(0, [0; 3], 0),
        }
    }

    fn new(kind: u32, sizes: [usize; 3], flags: u32) -> Self {
        let [key, value, entries] = sizes.map(|size| u32::try_from(size).expect("maps are small"));
        Self {
            kind,
            key,
            value,
            entries,
            flags,
        }
    }

    pub(super) fn is_of(self, info: &MapInfo) -> bool {
        let found = Self {
            kind: info.kind,
            key: info.key_size,
            value: info.value_size,
            entries: info.max_entries,
            flags: info.flags,
        };
        found == self
    }
}
