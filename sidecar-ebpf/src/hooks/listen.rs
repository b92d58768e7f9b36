//! Which ports the application listens on: `sk_lookup` steers attempts at those, and refuses the others.
//!
//! Counted, because several sockets may share a port, and by the addresses that reach them: a listener on loopback is
//! none for outsiders. Which sockets were counted is remembered, so that none is counted off that was never counted on,
//! and so that user space can tell which listeners the programs have not seen begin; those are in a map of its own.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use sidecar_ebpf::abi::{AppPort, AppSocket};
use sidecar_ebpf::addr::{Ip, Port};

use crate::maps::{self, APP_PORTS, APP_SOCKETS};

/// A socket listens from now on. Where it cannot be remembered it is not counted either: user space finds it.
#[inline(always)]
pub(super) fn begun(cookie: u64, netns: u64, ip: Ip, port: Port) {
    if maps::settings().is_none_or(|settings| settings.netns != netns) || ip.is_redirected_source() {
        return;
    }
    let socket = AppSocket {
        ip,
        port,
        reserved: 0,
    };
    if APP_SOCKETS.insert(cookie, socket, u64::from(BPF_NOEXIST)).is_ok() && !change(&socket, 1) {
        let _: Result<(), i32> = APP_SOCKETS.remove(cookie);
    }
}

/// A socket listens no more.
#[inline(always)]
pub(super) fn ended(cookie: u64) {
    // SAFETY: copied before anything else touches the map.
    if let Some(socket) = unsafe { APP_SOCKETS.get(cookie).copied() }
        && APP_SOCKETS.remove(cookie).is_ok()
    {
        change(&socket, -1);
    }
}

#[inline(always)]
fn change(socket: &AppSocket, by: i64) -> bool {
    let (ip, port) = (socket.ip, socket.port);
    let key = u32::from(port.get());
    let slot = match APP_PORTS.get_ptr_mut(key) {
        Some(slot) => slot,
        None => {
            // Somebody else may have been faster, which is as good.
            let _: Result<(), i32> = APP_PORTS.insert(key, AppPort { v4: 0, v6: 0 }, u64::from(BPF_NOEXIST));
            match APP_PORTS.get_ptr_mut(key) {
                Some(slot) => slot,
                None => return false,
            }
        }
    };
    // A socket on :: serves both families, unless it asked not to: then an attempt over IPv4 is steered to the proxy,
    // which is refused in its place.
    let (v4, v6) = (ip.is_v4() || ip.is_zero(), !ip.is_v4());
    // SAFETY: the map's value, which is never removed.
    unsafe {
        if v4 {
            add(&raw mut (*slot).v4, by);
        }
        if v6 {
            add(&raw mut (*slot).v6, by);
        }
    }
    true
}

/// The BPF target of Rust has no atomic types, though every kernel that can run these programs has the instruction.
///
/// # Safety
/// `to` points to a map value.
#[inline(always)]
unsafe fn add(to: *mut u64, by: i64) {
    // SAFETY: as the caller's.
    unsafe { asm!("lock *(u64 *)({to} + 0) += {by}", to = in(reg) to, by = in(reg) by) };
}
