//! Which ports the application listens on: `sk_lookup` steers attempts at those, and refuses the others.
//!
//! Counted, because several sockets may share a port, and by the addresses that reach them: a listener on loopback is
//! none for outsiders. Which sockets were counted is remembered, so that none is counted off that was never counted on,
//! and so that user space can tell which listeners the programs have not seen begin; those are in a map of its own.

use aya_ebpf::bindings::BPF_NOEXIST;
use sidecar_ebpf::abi::{AppPort, AppPorts, AppSocket};
use sidecar_ebpf::addr::{Ip, Port};

use super::atomic;
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
    if APP_SOCKETS.insert(cookie, socket, u64::from(BPF_NOEXIST)).is_ok() {
        change(&socket, Change::Begun);
    }
}

/// A socket listens no more.
#[inline(always)]
pub(super) fn ended(cookie: u64) {
    // SAFETY: copied before anything else touches the map.
    if let Some(socket) = unsafe { APP_SOCKETS.get(cookie).copied() }
        && APP_SOCKETS.remove(cookie).is_ok()
    {
        change(&socket, Change::Ended);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Begun,
    Ended,
}

#[inline(always)]
fn change(socket: &AppSocket, change: Change) {
    let ip = socket.ip;
    let (slot, at) = AppPorts::place(socket.port.get());
    let Some(ports) = APP_PORTS.get_ptr_mut(slot) else {
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
