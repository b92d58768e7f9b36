//! getsockname(2): show a redirected client the address that it would have sent from, which programs announce to
//! others, and not the loopback address that it sends from to the proxy.
//!
//! The port is the socket's own and stays. Where the routes gave no source, the loopback address is shown.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use sidecar_ebpf::abi::Role;
use sidecar_ebpf::addr::Ip;

use super::{ALLOW, load, set_user_ip6, store, user_ip6};
use crate::maps;

#[cgroup_sock_addr(getsockname4)]
pub(crate) fn or_getsockname4(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: a field that this hook may read.
    let shown = unsafe { Ip::from_v4(load(&raw const (*addr).user_ip4)) };
    if let Some(source) = source(&ctx, shown)
        && let Some(ip4) = source.v4()
    {
        // SAFETY: a field that this hook may write.
        unsafe { store(&raw mut (*addr).user_ip4, ip4) };
    }
    ALLOW
}

#[cgroup_sock_addr(getsockname6)]
pub(crate) fn or_getsockname6(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: fields that this hook may read.
    let shown = unsafe { user_ip6(addr) };
    if let Some(source) = source(&ctx, shown) {
        // SAFETY: fields that this hook may write.
        unsafe { set_user_ip6(addr, source) };
    }
    ALLOW
}

/// What to show instead. A socket that was bound to an address, or whose connection has ended, shows its own.
#[inline(always)]
fn source(ctx: &SockAddrContext, shown: Ip) -> Option<Ip> {
    // SAFETY: the kernel gives this hook a full socket, never null.
    let origin = unsafe { maps::origin(load(&raw const (*ctx.sock_addr).__bindgen_anon_1.sk)) }?;
    (origin.role == Role::CLIENT && shown.is_redirected_source() && !origin.source.is_zero())
        .then_some(origin.source)
}
