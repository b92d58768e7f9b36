//! getpeername(2), and the address that accept(2) returns: show the application whom it called or who really called
//! it, not the proxy.
//!
//! Leaves the proxy's accepted sockets alone: their peer is the true client.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use sidecar_ebpf::abi::{Origin, Role};
use sidecar_ebpf::addr::Ip;
use sidecar_ebpf::verdict;

use super::{ALLOW, load, set_user_ip6, store, user_ip6};
use crate::maps;

#[cgroup_sock_addr(getpeername4)]
pub(crate) fn or_getpeername4(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    if let Some(origin) = other_end(&ctx)
        && let Some(ip4) = origin.ip.v4()
    {
        // SAFETY: fields that this hook may write.
        unsafe {
            store(&raw mut (*addr).user_ip4, ip4);
            store(&raw mut (*addr).user_port, origin.port.to_user_port());
        }
        return ALLOW;
    }
    // SAFETY: a field that this hook may read.
    let shown = unsafe { Ip::from_v4(load(&raw const (*addr).user_ip4)) };
    if let Some(ip4) = verdict::stranger(shown).and_then(Ip::v4) {
        // SAFETY: a field that this hook may write.
        unsafe { store(&raw mut (*addr).user_ip4, ip4) };
    }
    ALLOW
}

/// An IPv6 socket whose other end is an IPv4 address is shown the v4-mapped form, which is how origins are kept.
#[cgroup_sock_addr(getpeername6)]
pub(crate) fn or_getpeername6(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    if let Some(origin) = other_end(&ctx) {
        // SAFETY: fields that this hook may write.
        unsafe {
            set_user_ip6(addr, origin.ip);
            store(&raw mut (*addr).user_port, origin.port.to_user_port());
        }
        return ALLOW;
    }
    // SAFETY: fields that this hook may read.
    let shown = unsafe { user_ip6(addr) };
    if let Some(nobody) = verdict::stranger(shown) {
        // SAFETY: fields that this hook may write.
        unsafe { set_user_ip6(addr, nobody) };
    }
    ALLOW
}

#[inline(always)]
fn other_end(ctx: &SockAddrContext) -> Option<Origin> {
    // SAFETY: the kernel gives this hook a full socket, never null.
    let origin = unsafe { maps::origin(load(&raw const (*ctx.sock_addr).__bindgen_anon_1.sk)) }?;
    let shown = origin.role == Role::CLIENT || origin.role == Role::PRESENTED || origin.role == Role::PROBED;
    shown.then_some(*origin)
}
