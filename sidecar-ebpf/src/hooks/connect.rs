//! connect(2): remember where the application wants to go, and send it to the proxy instead.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;
use sidecar_ebpf::abi::{Counter, Origin, Role};
use sidecar_ebpf::addr::{Endpoint, Ip, Port};
use sidecar_ebpf::verdict::{self, Connect, Connecting};

use super::{ALLOW, DENY, load, store};
use crate::maps;

#[cgroup_sock_addr(connect4)]
pub(crate) fn or_connect4(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: fields that this hook may read.
    let to = unsafe { Ip::from_v4(load(&raw const (*addr).user_ip4)) };
    let Ok(redirect) = decide(&ctx, to) else {
        return DENY;
    };
    if let Some(Endpoint { ip, port }) = redirect {
        // SAFETY: fields that this hook may write.
        unsafe {
            store(&raw mut (*addr).user_ip4, ip.words()[3]);
            store(&raw mut (*addr).user_port, port.to_user_port());
        }
    }
    ALLOW
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn or_connect6(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: fields that this hook may read.
    let to = unsafe { Ip::from_v6(user_ip6(addr)) };
    let Ok(redirect) = decide(&ctx, to) else {
        return DENY;
    };
    if let Some(Endpoint { ip, port }) = redirect {
        // A v4-mapped destination comes by this hook too, and stays mapped: the target has the same spelling.
        let words = ip.words();
        // SAFETY: fields that this hook may write.
        unsafe {
            store(&raw mut (*addr).user_ip6[0], words[0]);
            store(&raw mut (*addr).user_ip6[1], words[1]);
            store(&raw mut (*addr).user_ip6[2], words[2]);
            store(&raw mut (*addr).user_ip6[3], words[3]);
            store(&raw mut (*addr).user_port, port.to_user_port());
        }
    }
    ALLOW
}

/// Asks the verdict, and does its bookkeeping. `Err`: refuse.
#[inline(always)]
fn decide(ctx: &SockAddrContext, ip: Ip) -> Result<Option<Endpoint>, ()> {
    let addr = ctx.sock_addr;
    // SAFETY: fields that both hooks may read. The kernel gives these hooks a full socket, never null.
    let (sk, protocol, port, device) = unsafe {
        let sk = load(&raw const (*addr).__bindgen_anon_1.sk);
        (
            sk,
            load(&raw const (*addr).protocol),
            Port::from_user_port(load(&raw const (*addr).user_port)),
            load(&raw const (*sk).bound_dev_if),
        )
    };
    let to = Endpoint { ip, port };
    let settings = maps::settings().ok_or(())?;
    let socket = Connecting {
        protocol,
        // SAFETY: `sk` is this context's socket.
        bypass: unsafe { maps::is_bypassed(sk) },
        to,
        device,
    };
    match verdict::connect(&socket, settings) {
        Connect::Pass(why) => {
            maps::count(why);
            // SAFETY: `sk` is this context's socket.
            if let Some(stale) = unsafe { maps::origin(sk) } {
                // The socket was redirected before, or getpeername would go on showing that destination.
                stale.role = Role::NONE;
            }
            Ok(None)
        }
        Connect::Redirect(target) => {
            // SAFETY: `sk` is this context's socket.
            if unsafe { !maps::set_origin(sk, &mut Origin::new(to, Role::CLIENT)) } {
                maps::count(Counter::DeniedStorage);
                return Err(());
            }
            maps::count(Counter::Redirected);
            debug!(
                ctx,
                "connect to {:i} port {} redirected to {:i}",
                octets(ip),
                port.get(),
                octets(target.ip)
            );
            Ok(Some(target))
        }
        Connect::Deny(why) => {
            maps::count(why);
            debug!(
                ctx,
                "connect to {:i} port {} denied, reason {}",
                octets(ip),
                port.get(),
                why as u32
            );
            Err(())
        }
    }
}

#[inline(always)]
unsafe fn user_ip6(addr: *mut bpf_sock_addr) -> [u32; 4] {
    // SAFETY: as the caller's.
    unsafe {
        [
            load(&raw const (*addr).user_ip6[0]),
            load(&raw const (*addr).user_ip6[1]),
            load(&raw const (*addr).user_ip6[2]),
            load(&raw const (*addr).user_ip6[3]),
        ]
    }
}

#[inline(always)]
fn octets(ip: Ip) -> [u8; 16] {
    bytemuck::cast(ip)
}
