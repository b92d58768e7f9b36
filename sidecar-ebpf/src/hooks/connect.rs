//! connect(2): remember where the application wants to go, and send it to the proxy instead.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_getsockopt, bpf_setsockopt};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;
use sidecar_ebpf::abi::{Bypass, Counter, Direction, Origin, Role};
use sidecar_ebpf::addr::{Endpoint, Ip, Port};
use sidecar_ebpf::verdict::{self, Connect, Connecting, Facts, Probe};

use super::{
    ALLOW, DENY, SO_BINDTOIFINDEX, SO_REUSEADDR, SOL_SOCKET, facts, load, set_user_ip6, store, user_ip6,
};
use crate::maps::{self, Pod};

const AF_INET: u32 = 2;

#[cgroup_sock_addr(connect4)]
pub(crate) fn or_connect4(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: fields that this hook may read.
    let to = unsafe { Ip::from_v4(load(&raw const (*addr).user_ip4)) };
    decide(&ctx, to, |Endpoint { ip, port }| {
        // SAFETY: fields that this hook may write.
        unsafe {
            store(&raw mut (*addr).user_ip4, ip.words()[3]);
            store(&raw mut (*addr).user_port, port.to_user_port());
        }
    })
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn or_connect6(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: fields that this hook may read.
    let to = unsafe { user_ip6(addr) };
    decide(&ctx, to, |Endpoint { ip, port }| {
        // A v4-mapped destination comes by this hook too, and stays mapped: the target has the same spelling.
        // SAFETY: fields that this hook may write.
        unsafe {
            set_user_ip6(addr, ip);
            store(&raw mut (*addr).user_port, port.to_user_port());
        }
    })
}

/// Asks the verdict, and does its bookkeeping. `write` puts another destination in the place of the socket's: returned from here
/// it would be one value of several paths, not set on some, which the compiler computes with all the same ("R9 !read_ok").
#[inline(always)]
fn decide(ctx: &SockAddrContext, ip: Ip, write: impl Fn(Endpoint)) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: fields that both hooks may read. The kernel gives these hooks a full socket, never null.
    let (sk, protocol, port, bound, from) = unsafe {
        let sk = load(&raw const (*addr).__bindgen_anon_1.sk);
        (
            sk,
            load(&raw const (*addr).protocol),
            Port::from_user_port(load(&raw const (*addr).user_port)),
            load(&raw const (*sk).bound_dev_if),
            own_address(sk),
        )
    };
    let to = Endpoint { ip, port };
    // SAFETY: the context is this program's.
    let Some(pod) = Pod::of(unsafe { bpf_get_netns_cookie(addr.cast()) }) else {
        return if verdict::passes_anywhere(protocol, to) {
            ALLOW
        } else {
            DENY
        };
    };
    let Some(settings) = pod.settings() else {
        return DENY;
    };
    // SAFETY: `sk` is this context's socket.
    let (bypass, earlier) = unsafe { (maps::bypass(sk), maps::origin(sk)) };
    if let Some(origin) = &earlier
        && origin.flags & Origin::REUSE != 0
        && set(ctx, SO_REUSEADDR, 0)
    {
        // connect() failed before the kernel told anybody of it.
        // SAFETY: `sk` is this context's socket.
        if let Some(origin) = unsafe { maps::origin(sk) } {
            origin.flags &= !Origin::REUSE;
        }
    }
    // The binding that an earlier redirection took off the socket is still the application's.
    let device = match &earlier {
        Some(origin) if bound == 0 && origin.role == Role::CLIENT => origin.device,
        _ => bound,
    };
    let socket = Connecting {
        protocol,
        bypass: bypass.map(|mark| mark.application_port),
        probe: bypass.and_then(probe),
        to,
        from,
        device,
    };
    let mut verdict = verdict::connect(&socket, settings, || Facts {
        policy: verdict::of_port(pod.policy(settings, Direction::OUTBOUND, ip), port),
        path: pod.path(ip),
    });
    // A redirected SYN would leave for 127/8 through that device, and time out.
    if let Connect::Redirect(_) = verdict
        && bound != 0
        && !bind(ctx, 0)
    {
        verdict = verdict::device(settings);
    }
    match verdict {
        Connect::Pass(why) => {
            pod.count(why);
            if let Some(stale) = earlier {
                // The socket was redirected before, or getpeername would go on showing that destination.
                stale.role = Role::NONE;
                // SAFETY: `sk` is this context's socket.
                unsafe { maps::set_parent_origin(sk, &mut Origin::new(to, Role::NONE)) };
            }
            if device != bound {
                bind(ctx, device);
            }
            ALLOW
        }
        Connect::Deliver(application) => {
            pod.count(Counter::PassedBypass);
            write(application);
            ALLOW
        }
        Connect::Redirect(redirect) => {
            let mut flags = 0;
            if redirect.optimistic {
                flags |= Origin::OPTIMISTIC;
            }
            flags |= match socket.probe.map(|probe| probe.direction) {
                None => 0,
                Some(Direction::INBOUND) => Origin::PROBE | Origin::PROBE_INBOUND,
                Some(_) => Origin::PROBE,
            };
            if share_address(ctx, from) {
                flags |= Origin::REUSE;
            }
            let mut origin = Origin {
                source: redirect.source,
                flags,
                device,
                ..Origin::new(to, Role::CLIENT)
            };
            // SAFETY: `sk` is this context's socket.
            if unsafe { !maps::set_origin(sk, &mut origin) } {
                refused(ctx, pod, (from, to), Counter::DeniedStorage);
                return DENY;
            }
            // SAFETY: as above.
            unsafe { maps::set_parent_origin(sk, &mut origin) };
            if flags & Origin::PROBE == 0 {
                pod.count(Counter::Redirected);
            }
            debug!(
                ctx,
                "connect to {:i} port {} redirected to {:i}",
                octets(ip),
                port.get(),
                octets(redirect.target.ip)
            );
            write(redirect.target);
            ALLOW
        }
        Connect::Deny(why) => {
            refused(ctx, pod, (from, to), why);
            DENY
        }
        Connect::Fail(errno, why) => {
            refused(ctx, pod, (from, to), why);
            maps::fail_with(errno);
            DENY
        }
    }
}

#[inline(always)]
fn probe(mark: &Bypass) -> Option<Probe> {
    (mark.probe != Direction::NONE).then_some(Probe {
        nonce: Endpoint {
            ip: mark.client_ip,
            port: mark.client_port,
        },
        direction: mark.probe,
    })
}

#[inline(always)]
fn refused(ctx: &SockAddrContext, pod: Pod, (from, to): (Ip, Endpoint), why: Counter) {
    pod.count(why);
    facts::refused(pod, from, to, why);
    debug!(
        ctx,
        "connect to {:i} port {} fails, reason {}",
        octets(to.ip),
        to.port.get(),
        why as u32
    );
}

/// Binds the socket to a device, or to none.
#[inline(always)]
fn bind(ctx: &SockAddrContext, device: u32) -> bool {
    set(ctx, SO_BINDTOIFINDEX, device)
}

#[inline(always)]
fn set(ctx: &SockAddrContext, option: i32, value: u32) -> bool {
    let mut value = value;
    // SAFETY: the context is this program's, and the value is as long as it says.
    unsafe {
        bpf_setsockopt(
            ctx.sock_addr.cast(),
            SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            size_of::<u32>() as i32,
        ) == 0
    }
}

/// Lets the proxy's own socket have the address and port that the application has bound this one to, so that a server
/// outside of the mesh sees the application's. Taken back when the connection is there, or has failed.
#[inline(always)]
fn share_address(ctx: &SockAddrContext, from: Ip) -> bool {
    // Its port may come only now, with the connection (IP_BIND_ADDRESS_NO_PORT).
    if from.is_unspecified() {
        return false;
    }
    let mut shared = 0_u32;
    // SAFETY: the context is this program's, and the value is as long as it says.
    let asked = unsafe {
        bpf_getsockopt(
            ctx.sock_addr.cast(),
            SOL_SOCKET,
            SO_REUSEADDR,
            (&raw mut shared).cast(),
            size_of::<u32>() as i32,
        )
    };
    asked == 0 && shared == 0 && set(ctx, SO_REUSEADDR, 1)
}

/// The address that the socket is bound to; zero when it is not.
///
/// # Safety
/// `sk` is the socket of the context.
#[inline(always)]
unsafe fn own_address(sk: *mut bpf_sock) -> Ip {
    // SAFETY: fields that every program may read.
    unsafe {
        let family = load(&raw const (*sk).family);
        let v4 = load(&raw const (*sk).src_ip4);
        let v6 = [
            load(&raw const (*sk).src_ip6[0]),
            load(&raw const (*sk).src_ip6[1]),
            load(&raw const (*sk).src_ip6[2]),
            load(&raw const (*sk).src_ip6[3]),
        ];
        if family == AF_INET {
            Ip::from_v4(v4)
        } else {
            Ip::from_v6(v6)
        }
    }
}

#[inline(always)]
fn octets(ip: Ip) -> [u8; 16] {
    bytemuck::cast(ip)
}
