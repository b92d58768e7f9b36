//! Which ports the application listens on: `sk_lookup` steers attempts at those, and refuses the others.
//!
//! Counted, because several sockets may share a port, and by the addresses that reach them: a listener on loopback is
//! none for outsiders. Which sockets were counted is remembered, so that none is counted off that was never counted on,
//! and so that user space can tell which listeners the programs have not seen begin; those are in a map of its own.

use core::ptr;

use aya_ebpf::bindings::BPF_NOEXIST;
use sidecar_ebpf::abi::{AppPorts, AppSocket};
use sidecar_ebpf::addr::{Ip, Port};

use super::atomic;
use crate::maps::Pod;

/// A socket listens from now on. Where it cannot be remembered it is not counted either: user space finds it.
#[inline(always)]
pub(super) fn begun(pod: Pod, cookie: u64, ip: Ip, port: Port) {
    if ip.is_redirected_source() {
        return;
    }
    let socket = AppSocket {
        ip,
        port,
        reserved: 0,
    };
    let Some(sockets) = pod.app_sockets() else { return };
    if sockets.insert(cookie, socket, u64::from(BPF_NOEXIST)).is_ok() && !count_on(pod, &socket) {
        let _: Result<(), i32> = sockets.remove(cookie);
    }
}

/// A socket listens no more.
#[inline(always)]
pub(super) fn ended(pod: Pod, cookie: u64) {
    let Some(sockets) = pod.app_sockets() else { return };
    // SAFETY: copied before anything else touches the map.
    if let Some(socket) = unsafe { sockets.get(cookie).copied() }
        && sockets.remove(cookie).is_ok()
    {
        count_off(pod, &socket);
    }
}

/// As often as other sockets may begin or end on these ports meanwhile.
const ATTEMPTS: u32 = 4;

/// False: it is one too many for its port.
#[inline(always)]
fn count_on(pod: Pod, socket: &AppSocket) -> bool {
    let port = socket.port.get();
    let Some(ports) = pod.app_ports(AppPorts::place(port)) else {
        return false;
    };
    let (v4, v6) = families(socket.ip);
    for _ in 0..ATTEMPTS {
        // SAFETY: one of the values of the array, which are there for good.
        let before = unsafe { ptr::read_volatile(ports) };
        let Some(after) = before.with(port, v4, v6) else {
            return false;
        };
        // SAFETY: as above.
        if unsafe { atomic::exchange(ports.cast(), before.word(), after.word()) } {
            return true;
        }
    }
    false
}

#[inline(always)]
fn count_off(pod: Pod, socket: &AppSocket) {
    let port = socket.port.get();
    let (v4, v6) = families(socket.ip);
    if let Some(ports) = pod.app_ports(AppPorts::place(port)) {
        // SAFETY: one of the values of the array, which are there for good.
        unsafe { atomic::add_u64(ports.cast(), AppPorts::one(port, v4, v6).wrapping_neg()) };
    }
}

/// By which addresses it is reached. A socket on :: serves both families, unless it asked not to: then an attempt over IPv4 is
/// steered to the proxy, which is refused in its place.
#[inline(always)]
fn families(ip: Ip) -> (bool, bool) {
    (ip.is_v4() || ip.is_zero(), !ip.is_v4())
}
