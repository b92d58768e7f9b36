//! TCP's milestones: carry the original destination from the application's socket to the proxy's.
//!
//! Published under the connection's tuple when the tuple is final and the SYN has not left yet; claimed by the
//! accepted socket, which is the only other party that knows the tuple. So there is no moment to race for.

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
    BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, bpf_sock, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_sock_ops_cb_flags_set};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use aya_log_ebpf::debug;
use sidecar_ebpf::abi::{Counter, Role, Tuple};
use sidecar_ebpf::addr::{Ip, Port};

use super::load;
use crate::maps::{self, HANDSHAKE};

const AF_INET: u32 = 2;

/// Sockops programs answer through the context; the return value is reserved.
const HANDLED: u32 = 1;

#[sock_ops]
pub(crate) fn or_sockops(ctx: SockOpsContext) -> u32 {
    let ops = ctx.ops;
    // SAFETY: fields that every sockops callback may read.
    let (op, sk) = unsafe {
        (
            load(&raw const (*ops).op),
            load(&raw const (*ops).__bindgen_anon_2.sk),
        )
    };
    // Null for request and time-wait sockets.
    if sk.is_null() {
        return HANDLED;
    }
    match op {
        BPF_SOCK_OPS_TCP_CONNECT_CB => publish(ops, sk),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => claim(&ctx, sk),
        BPF_SOCK_OPS_STATE_CB => {
            // SAFETY: a field that this callback may read: the new state.
            if unsafe { load(&raw const (*ops).__bindgen_anon_1.args[1]) } == BPF_TCP_CLOSE {
                // Refused, reset, given up or claimed long ago: the tuple is free for another connection now.
                // SAFETY: `ops` is this program's context.
                let _: Result<(), i32> = HANDSHAKE.remove(unsafe { outgoing(ops) });
            }
        }
        _ => {}
    }
    HANDLED
}

/// Before the SYN leaves.
#[inline(always)]
fn publish(ops: *mut bpf_sock_ops, sk: *mut bpf_sock) {
    // SAFETY: `ops` is this program's context, and `sk` its socket, not null.
    let (tuple, origin) = unsafe { (outgoing(ops), maps::origin(sk)) };
    match origin {
        Some(origin) if origin.role == Role::CLIENT => {
            if HANDSHAKE.insert(tuple, *origin, 0).is_err() {
                maps::count(Counter::PublishFailed);
            }
            // SAFETY: `ops` is this program's context. Without the flag a refused connect ends unseen.
            unsafe {
                let flags = load(&raw const (*ops).bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_STATE_CB_FLAG;
                bpf_sock_ops_cb_flags_set(ops, flags as i32);
            }
        }
        // A plain connection over a tuple that was redirected before: a leftover would speak for it.
        _ => {
            let _: Result<(), i32> = HANDSHAKE.remove(tuple);
        }
    }
}

/// On the accepted socket, before the proxy can see it.
#[inline(always)]
fn claim(ctx: &SockOpsContext, sk: *mut bpf_sock) {
    // SAFETY: a field that every callback may read.
    let port = Port::from_local_port(unsafe { load(&raw const (*ctx.ops).local_port) });
    if maps::settings().is_none_or(|settings| settings.outbound_port.get() != port.get()) {
        return;
    }
    // SAFETY: `ops` is this program's context.
    let tuple = unsafe { incoming(ctx.ops) };
    // SAFETY: the value is copied before anything else touches the map.
    let Some(mut origin) = (unsafe { HANDSHAKE.get(tuple).copied() }) else {
        maps::count(Counter::Unclaimed);
        debug!(
            ctx,
            "connection from port {} has no original destination",
            tuple.source_port.get()
        );
        return;
    };
    origin.role = Role::ACCEPTED;
    // SAFETY: `sk` is this context's socket, not null.
    let stored = unsafe { maps::set_origin(sk, &mut origin) };
    maps::count(if stored {
        Counter::Claimed
    } else {
        Counter::ClaimFailed
    });
    let _: Result<(), i32> = HANDSHAKE.remove(tuple);
}

#[inline(always)]
unsafe fn outgoing(ops: *mut bpf_sock_ops) -> Tuple {
    // SAFETY: as the caller's.
    let ends = unsafe { ends(ops) };
    Tuple {
        netns: ends.netns,
        source: ends.local,
        destination: ends.remote,
        source_port: ends.local_port,
        destination_port: ends.remote_port,
        reserved: 0,
    }
}

#[inline(always)]
unsafe fn incoming(ops: *mut bpf_sock_ops) -> Tuple {
    // SAFETY: as the caller's.
    let ends = unsafe { ends(ops) };
    Tuple {
        netns: ends.netns,
        source: ends.remote,
        destination: ends.local,
        source_port: ends.remote_port,
        destination_port: ends.local_port,
        reserved: 0,
    }
}

struct Ends {
    netns: u64,
    local: Ip,
    remote: Ip,
    local_port: Port,
    remote_port: Port,
}

/// The family differs between the ends of one connection (a dual-stack child says AF_INET6 for an IPv4 client),
/// so it is not asked alone: AF_INET, or words that are v4-mapped, mean IPv4.
#[inline(always)]
unsafe fn ends(ops: *mut bpf_sock_ops) -> Ends {
    // SAFETY: the caller passes its context, and all of these are fields that every callback may read.
    unsafe {
        let family = load(&raw const (*ops).family);
        let local4 = load(&raw const (*ops).local_ip4);
        let remote4 = load(&raw const (*ops).remote_ip4);
        let local6 = Ip::from_v6([
            load(&raw const (*ops).local_ip6[0]),
            load(&raw const (*ops).local_ip6[1]),
            load(&raw const (*ops).local_ip6[2]),
            load(&raw const (*ops).local_ip6[3]),
        ]);
        let remote6 = Ip::from_v6([
            load(&raw const (*ops).remote_ip6[0]),
            load(&raw const (*ops).remote_ip6[1]),
            load(&raw const (*ops).remote_ip6[2]),
            load(&raw const (*ops).remote_ip6[3]),
        ]);
        let v4 = family == AF_INET || (local6.is_v4() && remote6.is_v4());
        Ends {
            netns: bpf_get_netns_cookie(ops.cast()),
            local: if v4 { Ip::from_v4(local4) } else { local6 },
            remote: if v4 { Ip::from_v4(remote4) } else { remote6 },
            local_port: Port::from_local_port(load(&raw const (*ops).local_port)),
            remote_port: Port::from_remote_port(load(&raw const (*ops).remote_port)),
        }
    }
}
