//! What is kept with a socket: origins, marks, answers, and when a connection began. Dies with the socket.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{bpf_set_retval, bpf_sk_storage_get, bpf_skc_to_mptcp_sock};
use sidecar_ebpf::abi::control::Answer;
use sidecar_ebpf::abi::{Bypass, Origin, Watched};

use crate::maps::{ANSWERS, BYPASS, FEATURE_MPTCP, FEATURE_RETVAL, ORIGIN, WATCHED, has};

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

/// Gives an MPTCP socket the origin of its first subflow, which is the socket that the connect hooks see: names are
/// asked for on the parent. Where the kernel does not let programs find it, the parent shows the proxy's address.
///
/// # Safety
/// As for [`origin`].
#[inline(always)]
pub(crate) unsafe fn set_parent_origin(sk: *mut bpf_sock, origin: &mut Origin) {
    if !has(&FEATURE_MPTCP) {
        return;
    }
    // SAFETY: the caller's socket; the helper returns null for one that is no subflow.
    let parent = unsafe { bpf_skc_to_mptcp_sock(sk.cast()) };
    if !parent.is_null() {
        // SAFETY: an MPTCP socket begins with what every socket begins with.
        unsafe { set_origin(parent.cast(), origin) };
    }
}

/// Lets connect() fail with this errno instead of EPERM, where the kernel can.
#[inline(always)]
pub(crate) fn fail_with(errno: u32) {
    if has(&FEATURE_RETVAL) {
        // SAFETY: the helper takes a number.
        unsafe { bpf_set_retval(-(errno as i32)) };
    }
}

/// The mark of one of the proxy's own sockets.
///
/// # Safety
/// As for [`origin`].
#[inline(always)]
pub(crate) unsafe fn bypass<'a>(sk: *mut bpf_sock) -> Option<&'a Bypass> {
    // SAFETY: as for `origin`.
    let mark = unsafe {
        storage(&raw const BYPASS, sk, ptr::null_mut(), 0)
            .cast::<Bypass>()
            .as_ref()
    };
    mark.filter(|mark| mark.on != 0)
}

/// Marks one of the proxy's own sockets, over any older mark. False when the kernel has no room for it.
///
/// # Safety
/// As for [`origin`].
#[inline(always)]
pub(crate) unsafe fn set_bypass(sk: *mut bpf_sock, mark: &mut Bypass) -> bool {
    let initial = ptr::from_mut(mark).cast();
    // SAFETY: as for `set_origin`.
    let slot = unsafe { storage(&raw const BYPASS, sk, initial, BPF_SK_STORAGE_GET_F_CREATE.into()) };
    // SAFETY: null, or this socket's value.
    match unsafe { slot.cast::<Bypass>().as_mut() } {
        Some(slot) => {
            *slot = *mark;
            true
        }
        None => false,
    }
}

/// Where an answer for a socket goes. `None` when the kernel has no room for it.
///
/// # Safety
/// As for [`origin`].
#[inline(always)]
pub(crate) unsafe fn new_answer<'a>(sk: *mut bpf_sock) -> Option<&'a mut Answer> {
    // SAFETY: as for `origin`. The kernel fills a new value with zeros.
    unsafe {
        storage(
            &raw const ANSWERS,
            sk,
            ptr::null_mut(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
        .cast::<Answer>()
        .as_mut()
    }
}

/// What was found for a socket that has asked.
///
/// # Safety
/// As for [`origin`].
#[inline(always)]
pub(crate) unsafe fn answer<'a>(sk: *mut bpf_sock) -> Option<&'a Answer> {
    // SAFETY: as for `origin`.
    unsafe {
        storage(&raw const ANSWERS, sk, ptr::null_mut(), 0)
            .cast::<Answer>()
            .as_ref()
    }
}

/// When a connection began that is left alone, if this is its socket.
///
/// # Safety
/// As for [`origin`].
#[inline(always)]
pub(crate) unsafe fn watched<'a>(sk: *mut bpf_sock) -> Option<&'a mut Watched> {
    // SAFETY: as for `origin`.
    unsafe {
        storage(&raw const WATCHED, sk, ptr::null_mut(), 0)
            .cast::<Watched>()
            .as_mut()
    }
}

/// Over any older value. False when the kernel has no room for it.
///
/// # Safety
/// As for [`origin`].
#[inline(always)]
pub(crate) unsafe fn set_watched(sk: *mut bpf_sock, value: &mut Watched) -> bool {
    let initial = ptr::from_mut(value).cast();
    // SAFETY: as above, and `initial` has the size of the map's values.
    let slot = unsafe {
        storage(
            &raw const WATCHED,
            sk,
            initial,
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    };
    // SAFETY: null, or this socket's value.
    match unsafe { slot.cast::<Watched>().as_mut() } {
        Some(slot) => {
            *slot = *value;
            true
        }
        None => false,
    }
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
