//! Which ports the application listens on: `sk_lookup` steers attempts at those, and refuses the others.
//!
//! Counted, because several sockets may share a port, and by the addresses that reach them: a listener on loopback is
//! none for outsiders. Which sockets were counted is remembered, so that none is counted off that was never counted on,
//! and so that user space can tell which listeners the programs have not seen begin; those are in a map of its own.

use aya_ebpf::bindings::BPF_NOEXIST;
use sidecar_ebpf::abi::{AppPort, AppPorts, AppSocket};
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
    if sockets.insert(cookie, socket, u64::from(BPF_NOEXIST)).is_ok() {
        change(pod, &socket, Change::Begun);
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
        change(pod, &socket, Change::Ended);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Begun,
    Ended,
}

#[inline(always)]
fn change(pod: Pod, socket: &AppSocket, change: Change) {
    let ip = socket.ip;
    let (slot, at) = AppPorts::place(socket.port.get());
    let Some(ports) = pod.app_ports(slot) else {
        return;
    };
    // A socket on :: serves both families, unless it asked not to: then an attempt over IPv4 is steered to the proxy,
    // which is refused in its place.
    let one = AppPort::one(ip.is_v4() || ip.is_zero(), !ip.is_v4());
    let by = match change {
        Change::Begun => one,
        Change::Ended => one.wrapping_neg(),
    };
    // SAFETY: one of the values of the array, which are there for good.
    unsafe { atomic::add(ports.cast::<u32>().add(at), by) };
}
