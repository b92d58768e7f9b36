//! One file a hook. Every context field is read with [`load`] and written with [`store`].

mod approve;
pub(crate) mod atomic;
mod connect;
mod facts;
mod getpeername;
mod getsockname;
mod getsockopt;
mod hold;
mod listen;
mod pending;
mod setsockopt;
mod sk_lookup;
mod sockops;

use aya_ebpf::bindings::bpf_sock_addr;
use sidecar_ebpf::addr::Ip;

const SOL_SOCKET: i32 = 1;
const SO_REUSEADDR: i32 = 2;
const SO_BINDTOIFINDEX: i32 = 62;

/// What a cgroup hook answers.
const ALLOW: i32 = 1;
const DENY: i32 = 0;
/// An option that is longer has no room in the buffer of a hook.
const PAGE_SIZE: i32 = 4096;

/// Reads a context field, unmerged and in place. LLVM turns a choice between two fields into arithmetic on the
/// context pointer ("dereference of modified ctx ptr"), so callers load every field first and choose afterwards.
#[inline(always)]
unsafe fn load<T: Copy>(field: *const T) -> T {
    // SAFETY: the caller points into the context it was called with.
    unsafe { core::ptr::read_volatile(field) }
}

/// Writes a context field. Two neighbours written plainly become one wide store ("invalid bpf_context access").
#[inline(always)]
unsafe fn store<T: Copy>(field: *mut T, value: T) {
    // SAFETY: the caller points into the context it was called with.
    unsafe { core::ptr::write_volatile(field, value) }
}

/// The IPv6 address of a socket address context.
///
/// # Safety
/// `addr` is the context of a hook that may read it.
#[inline(always)]
unsafe fn user_ip6(addr: *mut bpf_sock_addr) -> Ip {
    // SAFETY: as the caller's.
    unsafe {
        Ip::from_v6([
            load(&raw const (*addr).user_ip6[0]),
            load(&raw const (*addr).user_ip6[1]),
            load(&raw const (*addr).user_ip6[2]),
            load(&raw const (*addr).user_ip6[3]),
        ])
    }
}

/// Writes it.
///
/// # Safety
/// `addr` is the context of a hook that may write it.
#[inline(always)]
unsafe fn set_user_ip6(addr: *mut bpf_sock_addr, ip: Ip) {
    let words = ip.words();
    // SAFETY: as the caller's.
    unsafe {
        store(&raw mut (*addr).user_ip6[0], words[0]);
        store(&raw mut (*addr).user_ip6[1], words[1]);
        store(&raw mut (*addr).user_ip6[2], words[2]);
        store(&raw mut (*addr).user_ip6[3], words[3]);
    }
}
