//! All maps on one screen, and the few ways in which programs touch them. `lib.rs` says who writes which.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::btf_maps::{Array, LruHashMap, PerCpuArray, SkStorage, SockMap};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;
use sidecar_ebpf::abi::{Bypass, Counter, HANDSHAKE_ENTRIES, LISTENER_SLOTS, Origin, Settings, Tuple};

#[btf_map(name = "or_origin")]
static ORIGIN: SkStorage<Origin> = SkStorage::new();

#[btf_map(name = "or_handshake")]
pub(crate) static HANDSHAKE: LruHashMap<Tuple, Origin, HANDSHAKE_ENTRIES> = LruHashMap::new();

#[btf_map(name = "or_bypass")]
static BYPASS: SkStorage<Bypass> = SkStorage::new();

#[btf_map(name = "or_listeners")]
pub(crate) static LISTENERS: SockMap<LISTENER_SLOTS> = SockMap::new();

#[btf_map(name = "or_settings")]
static SETTINGS: Array<Settings, 1> = Array::new();

#[btf_map(name = "or_counters")]
static COUNTERS: PerCpuArray<u64, { Counter::COUNT }> = PerCpuArray::new();

/// The one entry of an array always exists; the verifier wants the question asked.
#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot belongs to this CPU. A nested program may lose one count, which is no harm.
        unsafe { *value += 1 };
    }
}

/// The origin of a socket, if it has one.
///
/// # Safety
/// `sk` is the non-null socket of the context that the program runs with.
#[inline(always)]
pub(crate) unsafe fn origin<'a>(sk: *mut bpf_sock) -> Option<&'a mut Origin> {
    // SAFETY: the helper returns null or a value that lives as long as the socket, which the context holds.
    unsafe {
        storage(&raw const ORIGIN, sk, ptr::null_mut(), 0)
            .cast::<Origin>()
            .as_mut()
    }
}

/// Gives a socket its origin, over any older one. False when the kernel has no room for it.
///
/// # Safety
/// As for [`origin`].
#[inline(always)]
pub(crate) unsafe fn set_origin(sk: *mut bpf_sock, origin: &mut Origin) -> bool {
    let initial = ptr::from_mut(origin).cast();
    // SAFETY: as above, and `initial` has the size of the map's values.
    let slot = unsafe { storage(&raw const ORIGIN, sk, initial, BPF_SK_STORAGE_GET_F_CREATE.into()) };
    // SAFETY: null, or this socket's value.
    match unsafe { slot.cast::<Origin>().as_mut() } {
        Some(slot) => {
            // A value from an earlier connect() is still there: the helper only fills new ones.
            *slot = *origin;
            true
        }
        None => false,
    }
}

/// Whether the proxy has marked the socket as its own.
///
/// # Safety
/// As for [`origin`].
#[inline(always)]
pub(crate) unsafe fn is_bypassed(sk: *mut bpf_sock) -> bool {
    // SAFETY: as for `origin`.
    let mark = unsafe {
        storage(&raw const BYPASS, sk, ptr::null_mut(), 0)
            .cast::<Bypass>()
            .as_ref()
    };
    mark.is_some_and(|mark| mark.on != 0)
}

/// The raw helper: aya's own wrapper takes a socket address context and nothing else.
#[inline(always)]
unsafe fn storage<T>(
    map: *const SkStorage<T>,
    sk: *mut bpf_sock,
    initial: *mut c_void,
    flags: u64,
) -> *mut c_void {
    // SAFETY: `map` is a map definition that the loader replaces; the caller vouches for `sk`.
    unsafe { bpf_sk_storage_get(map.cast_mut().cast(), sk.cast(), initial, flags) }
}
