//! All maps on one screen, and the few ways in which programs touch them. `lib.rs` says who writes which.

use core::ptr;

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, RingBuf, SkStorage, SockMap};
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::btf_map;
use sidecar_ebpf::abi::control::{Answer, Secret};
use sidecar_ebpf::abi::{
    APP_PORT_SLOTS, APP_SOCKET_ENTRIES, AppPorts, AppSocket, Bypass, COUNTER_ROWS, COUNTER_SLOTS, Counter,
    Direction, Event, HOST_ADDRESSES, INHERITED_SLOTS, Inherited, LISTENER_SLOTS, MAX_SHARDS, Origin, Owner,
    PENDING_ENTRIES, PODS_MOST, POLICY_ENTRIES, PRESENTED_ENTRIES, PROBE_PORTS, Path, Pending, Policy,
    PolicyKey, ProbePort, RING_BYTES, ROUTE_ENTRIES, SHARD_SLOTS, Settings, Tuple, Watched, ring_slot,
};
use sidecar_ebpf::addr::{Endpoint, Ip, Port};
use sidecar_ebpf::verdict;

use crate::hooks::atomic;
pub(crate) use crate::storage::*;

/// What the loader has found the kernel able to do. Known to the verifier as constants, so that it never looks at the
/// calls that would not be there.
#[unsafe(no_mangle)]
pub(crate) static FEATURE_MPTCP: u8 = 0;
#[unsafe(no_mangle)]
pub(crate) static FEATURE_RETVAL: u8 = 0;

/// Whom these programs were loaded for, as far as they serve one pod: the filter of a listener has to know whose listener it
/// is, whatever the settings say by now about new connections. In a section of its own, so that the loader can put the map of
/// another pod in the place of this one.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.owner")]
static OWNER: Owner = Owner::ALONE;

/// The shard of the proxy that this program was loaded for.
#[inline(always)]
pub(crate) fn own_shard(from: Endpoint, to: Endpoint) -> u32 {
    // SAFETY: references to constants.
    let (first, shards) = unsafe {
        (
            ptr::read_volatile(&raw const OWNER.first_shard),
            ptr::read_volatile(&raw const OWNER.shards),
        )
    };
    first + verdict::shard(from, to, shards)
}

/// Whether that proxy has this shard.
#[inline(always)]
pub(crate) fn is_own(shard: u32) -> bool {
    // SAFETY: a reference to a constant.
    let first = unsafe { ptr::read_volatile(&raw const OWNER.first_shard) };
    shard.wrapping_sub(first) < MAX_SHARDS as u32
}

/// A volatile read: the compiler would take the value that stands here. aya's own type for this is no way, because
/// the kernel refuses the BTF of its union.
#[inline(always)]
pub(crate) fn has(feature: &'static u8) -> bool {
    // SAFETY: a reference to a constant.
    unsafe { ptr::read_volatile(feature) != 0 }
}

/// Most pods have few entries; what is not there takes no memory.
const GROWS: usize = BPF_F_NO_PREALLOC as usize;

/// User space reads it as its own memory, without bpf(2). Takes whole pages.
const MAPPED: usize = BPF_F_MMAPABLE as usize;

#[btf_map(name = "or_origin")]
pub(crate) static ORIGIN: SkStorage<Origin> = SkStorage::new();

#[btf_map(name = "or_bypass")]
pub(crate) static BYPASS: SkStorage<Bypass> = SkStorage::new();

#[btf_map(name = "or_watched")]
pub(crate) static WATCHED: SkStorage<Watched> = SkStorage::new();

/// Of the sockets by which a proxy asks.
#[btf_map(name = "or_answers")]
pub(crate) static ANSWERS: SkStorage<Answer> = SkStorage::new();

/// The numbers of the pods, by the cookies of their network namespaces.
#[btf_map(name = "or_pods")]
static PODS: HashMap<u64, u32, PODS_MOST, GROWS> = HashMap::new();

/// Addresses of the host.
#[btf_map(name = "or_host")]
static HOST: HashMap<Ip, u32, HOST_ADDRESSES, GROWS> = HashMap::new();

/// Where the host may ask whether a pod's containers are well.
#[btf_map(name = "or_probes")]
static PROBES: HashMap<ProbePort, u32, PROBE_PORTS, GROWS> = HashMap::new();

/// By pod and shard, of all generations: [`ring_slot`]. A ring is untyped: the kernel wants no size of it.
#[btf_map(name = "or_rings")]
static RINGS: ArrayOfMaps<RingBuf<(), RING_BYTES>, SHARD_SLOTS> = ArrayOfMaps::new();

/// Whether the host itself asks whether a container is well.
#[inline(always)]
pub(crate) fn is_probe(netns: u64, from: Ip, port: Port) -> bool {
    let at = ProbePort::new(netns, port);
    // SAFETY: neither value is looked at.
    unsafe { PROBES.get(at).is_some() && HOST.get(from).is_some() }
}

/// A map of each pod, by its number. The loader makes room for as many pods as it serves.
type ByPod<M> = ArrayOfMaps<M, 1>;

type PendingMap = HashMap<Tuple, Pending, PENDING_ENTRIES, GROWS>;
type PresentedMap = HashMap<Tuple, Origin, PRESENTED_ENTRIES, GROWS>;
type Listeners = SockMap<LISTENER_SLOTS>;
/// By [`AppPorts::place`].
type AppPortMap = Array<AppPorts, APP_PORT_SLOTS, MAPPED>;
/// By cookie.
type AppSocketMap = HashMap<u64, AppSocket, APP_SOCKET_ENTRIES, GROWS>;
/// By [`Inherited::place`].
type InheritedMap = Array<Inherited, INHERITED_SLOTS, MAPPED>;
type PolicyMap = LpmTrie<PolicyKey, Policy, POLICY_ENTRIES>;
type RouteMap = LpmTrie<Ip, Path, ROUTE_ENTRIES>;
type SettingsMap = Array<Settings, 1, MAPPED>;
type SecretMap = Array<Secret, 1>;
/// By [`Counter::slot`]. Not the kernel's kind of array for each CPU, which cannot be mapped.
type CounterMap = Array<u64, { COUNTER_ROWS * COUNTER_SLOTS }, MAPPED>;

// No program uses these: by them the loader makes the maps of one pod. Linux 6.1 takes a map for the place of another only where
// both have BTF, or neither has.

#[btf_map(name = "or_pending")]
static OWN_PENDING: PendingMap = HashMap::new();

#[btf_map(name = "or_presented")]
static OWN_PRESENTED: PresentedMap = HashMap::new();

#[btf_map(name = "or_listeners")]
static OWN_LISTENERS: Listeners = SockMap::new();

#[btf_map(name = "or_app_ports")]
static OWN_APP_PORTS: AppPortMap = Array::new();

#[btf_map(name = "or_app_sockets")]
static OWN_APP_SOCKETS: AppSocketMap = HashMap::new();

#[btf_map(name = "or_inherited")]
static OWN_INHERITED: InheritedMap = Array::new();

#[btf_map(name = "or_policy")]
static OWN_POLICY: PolicyMap = LpmTrie::new();

#[btf_map(name = "or_routes")]
static OWN_ROUTES: RouteMap = LpmTrie::new();

#[btf_map(name = "or_settings")]
static OWN_SETTINGS: SettingsMap = Array::new();

#[btf_map(name = "or_counters")]
static OWN_COUNTERS: CounterMap = Array::new();

#[btf_map(name = "or_secret")]
static OWN_SECRET: SecretMap = Array::new();

#[btf_map(name = "or_pod_pending")]
static PENDING: ByPod<PendingMap> = ArrayOfMaps::new();

#[btf_map(name = "or_pod_present")]
static PRESENTED: ByPod<PresentedMap> = ArrayOfMaps::new();

#[btf_map(name = "or_pod_listen")]
static LISTENERS: ByPod<Listeners> = ArrayOfMaps::new();

#[btf_map(name = "or_pod_ports")]
static APP_PORTS: ByPod<AppPortMap> = ArrayOfMaps::new();

#[btf_map(name = "or_pod_sockets")]
static APP_SOCKETS: ByPod<AppSocketMap> = ArrayOfMaps::new();

#[btf_map(name = "or_pod_found")]
static INHERITED: ByPod<InheritedMap> = ArrayOfMaps::new();

#[btf_map(name = "or_pod_policy")]
static POLICY: ByPod<PolicyMap> = ArrayOfMaps::new();

#[btf_map(name = "or_pod_routes")]
static ROUTES: ByPod<RouteMap> = ArrayOfMaps::new();

#[btf_map(name = "or_pod_settings")]
static SETTINGS: ByPod<SettingsMap> = ArrayOfMaps::new();

#[btf_map(name = "or_pod_counters")]
static COUNTERS: ByPod<CounterMap> = ArrayOfMaps::new();

#[btf_map(name = "or_pod_secret")]
static SECRET: ByPod<SecretMap> = ArrayOfMaps::new();

/// One of the pods that these programs serve. Every map of a pod is there from before its first program is attached; the
/// verifier wants the question asked.
#[derive(Clone, Copy)]
pub(crate) struct Pod(u32);

impl Pod {
    /// `None`: the namespace is no pod's. A container of the pod may have made one of its own.
    #[inline(always)]
    pub(crate) fn of(netns: u64) -> Option<Self> {
        // SAFETY: copied before anything else touches the map.
        unsafe { PODS.get(netns) }.map(|number| Self(*number))
    }

    /// The only one that this program has been loaded for: a listener's filter and `sk_lookup` are not told in which namespace
    /// they run.
    #[inline(always)]
    pub(crate) fn own() -> Self {
        // SAFETY: a reference to a constant.
        Self(unsafe { ptr::read_volatile(&raw const OWNER.pod) })
    }

    #[inline(always)]
    pub(crate) fn settings(self) -> Option<&'static Settings> {
        // A constant would be put where the loader writes: the compiler gives equal constants one place, and the zero of a
        // feature is one.
        let first = 0;
        SETTINGS.get_value(self.0, &first)
    }

    /// To be written word by word.
    #[inline(always)]
    pub(crate) fn settings_mut(self) -> Option<*mut Settings> {
        let first = 0;
        SETTINGS.get_value_ptr_mut(self.0, &first)
    }

    /// What the installer has given to the proxy of this pod.
    #[inline(always)]
    pub(crate) fn secret(self) -> Option<&'static Secret> {
        let first = 0;
        SECRET.get_value(self.0, &first)
    }

    #[inline(always)]
    pub(crate) fn policies(self) -> Option<&'static PolicyMap> {
        POLICY.get(self.0)
    }

    #[inline(always)]
    pub(crate) fn routes(self) -> Option<&'static RouteMap> {
        ROUTES.get(self.0)
    }

    /// What the policy in force says about an address: the ranges of its longest prefix.
    #[inline(always)]
    pub(crate) fn policy(self, settings: &Settings, direction: Direction, ip: Ip) -> Option<&'static Policy> {
        let key = PolicyKey {
            generation: settings.policy_generation as u8,
            direction,
            reserved: 0,
            ip,
        };
        POLICY.get(self.0)?.get(&Key::new(PolicyKey::BITS, key))
    }

    /// How this pod reaches an address.
    #[inline(always)]
    pub(crate) fn path(self, ip: Ip) -> Option<Path> {
        ROUTES.get(self.0)?.get(&Key::new(128, ip)).copied()
    }

    #[inline(always)]
    pub(crate) fn pending(self) -> Option<&'static PendingMap> {
        PENDING.get(self.0)
    }

    #[inline(always)]
    pub(crate) fn presented(self) -> Option<&'static PresentedMap> {
        PRESENTED.get(self.0)
    }

    #[inline(always)]
    pub(crate) fn listeners(self) -> Option<&'static Listeners> {
        LISTENERS.get(self.0)
    }

    /// How many sockets listen on the ports of this place.
    #[inline(always)]
    pub(crate) fn app_ports(self, place: u32) -> Option<*mut AppPorts> {
        APP_PORTS.get_value_ptr_mut(self.0, &place)
    }

    #[inline(always)]
    pub(crate) fn app_sockets(self) -> Option<&'static AppSocketMap> {
        APP_SOCKETS.get(self.0)
    }

    #[inline(always)]
    pub(crate) fn inherited(self, place: u32) -> Option<Inherited> {
        INHERITED.get_value(self.0, &place).copied()
    }

    #[inline(always)]
    pub(crate) fn ring(self, shard: u32) -> Option<&'static RingBuf<(), RING_BYTES>> {
        RINGS.get(ring_slot(self.0, shard))
    }

    #[inline(always)]
    pub(crate) fn count(self, counter: Counter) {
        // SAFETY: the helper takes nothing.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        if let Some(value) = COUNTERS.get_value_ptr_mut(self.0, &counter.slot(cpu)) {
            // SAFETY: one of the values of the array, which are aligned to 8 bytes and there for good.
            unsafe { atomic::add_u64(value, 1) };
        }
    }

    /// Tells a shard what has become of a connection, where the SYN does not matter. False, and counted, when its ring has no
    /// room.
    #[inline(always)]
    pub(crate) fn tell(self, shard: u32, tuple: Tuple, origin: Origin, sequence: u32, kind: u8) -> bool {
        let record = self.ring(shard).and_then(|ring| ring.reserve_untyped::<Event>(0));
        let Some(mut record) = record else {
            self.count(Counter::RingFull);
            return false;
        };
        record.write(Event {
            tuple,
            origin,
            sequence,
            kind,
            traffic_class: 0,
            tcp_len: 0,
            reserved: 0,
            tcp: [0; 64],
        });
        record.submit(0);
        true
    }
}
