//! TCP's milestones: carry the original destination from the application's socket to the proxy's, and the true
//! client from the proxy's socket to the application's; keep count of the ports that the application listens on.
//!
//! Published under the connection's tuple when the tuple is final and the SYN has not left yet; claimed by the
//! accepted socket, which is the only other party that knows the tuple. So there is no moment to race for.

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTT_CB,
    BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
    BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_TCP_CLOSE, BPF_TCP_LISTEN, bpf_sock, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_setsockopt, bpf_sock_ops_cb_flags_set,
};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use aya_log_ebpf::debug;
use sidecar_ebpf::abi::{Counter, Direction, Event, Origin, Role, Tuple};
use sidecar_ebpf::addr::{Endpoint, Ip, Port};
use sidecar_ebpf::verdict;

use super::{SO_BINDTOIFINDEX, SO_REUSEADDR, SOL_SOCKET, facts, listen, load, pending};
use crate::maps::{self, Pod};

const AF_INET: u32 = 2;

const SOL_TCP: i32 = 6;
/// Of `linux/bpf.h`.
const TCP_BPF_SNDCWND_CLAMP: i32 = 1002;
/// Segments, of 1,400 bytes each where the proxy is at the other end.
const IN_FLIGHT: u32 = 24;
const IN_FLIGHT_BULK: u32 = 512;
/// Bytes.
const BULK: u64 = 4 << 20;

/// No device gets this index: the kernel counts them up from 1.
const NO_DEVICE: u32 = i32::MAX as u32;

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
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => established(ops, sk),
        BPF_SOCK_OPS_RTT_CB => widen(ops),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => claim(&ctx, sk),
        BPF_SOCK_OPS_TCP_LISTEN_CB => {
            // SAFETY: `ops` is this program's context.
            let (end, cookie) = unsafe { (ends(ops), bpf_get_socket_cookie(ops.cast())) };
            if let Some(pod) = Pod::of(end.netns) {
                listen::begun(pod, cookie, end.local, end.local_port);
            }
            watch(ops);
        }
        BPF_SOCK_OPS_STATE_CB => {
            // SAFETY: fields that this callback may read: the old state and the new one.
            let (old, new) = unsafe {
                (
                    load(&raw const (*ops).__bindgen_anon_1.args[0]),
                    load(&raw const (*ops).__bindgen_anon_1.args[1]),
                )
            };
            if new == BPF_TCP_CLOSE {
                unbind(ops, sk);
                unshare_address(ops, sk);
                // SAFETY: `ops` is this program's context.
                facts::ended(ops, sk, old, || unsafe { outgoing(ops) });
                closed(ops, old);
            }
        }
        _ => {}
    }
    HANDLED
}

/// Before the SYN leaves. What an earlier connection over the same tuple has left would speak for this one.
#[inline(always)]
fn publish(ops: *mut bpf_sock_ops, sk: *mut bpf_sock) {
    // SAFETY: `ops` is this program's context, and `sk` its socket, not null.
    let (tuple, origin, bypass) = unsafe { (outgoing(ops), maps::origin(sk), maps::bypass(sk)) };
    let Some(pod) = Pod::of(tuple.netns) else { return };
    let client = origin.filter(|origin| origin.role == Role::CLIENT);
    let presents = bypass.filter(|bypass| bypass.client_port.get() != 0 && bypass.probe == Direction::NONE);
    if let Some(origin) = client {
        if !pending::publish(pod, &tuple, origin) {
            pod.count(Counter::PublishFailed);
            fail_connect(ops);
        }
        watch(ops);
    } else {
        pending::remove(pod, &tuple);
        if bypass.is_none() && facts::begun(pod, sk, &tuple) {
            watch(ops);
        }
    }
    if let Some(bypass) = presents {
        let client = Endpoint {
            ip: bypass.client_ip,
            port: bypass.client_port,
        };
        let shown = Origin::new(client, bypass.accepted);
        if !pod
            .presented()
            .is_some_and(|map| map.insert(tuple, shown, 0).is_ok())
        {
            pod.count(Counter::PresentFailed);
            fail_connect(ops);
        }
        watch(ops);
    } else {
        forget_presented(pod, &tuple);
    }
}

#[inline(always)]
fn forget_presented(pod: Pod, tuple: &Tuple) {
    if let Some(map) = pod.presented() {
        let _: Result<(), i32> = map.remove(tuple);
    }
}

/// Lets connect() fail with EHOSTUNREACH, before a SYN leaves. Programs of this type cannot refuse, but tcp_connect() looks
/// for a route after it has called them, and through a device that does not exist there is none.
#[inline(always)]
fn fail_connect(ops: *mut bpf_sock_ops) {
    set(ops, SO_BINDTOIFINDEX, NO_DEVICE);
}

/// Takes that back: the application may try again with its socket.
#[inline(always)]
fn unbind(ops: *mut bpf_sock_ops, sk: *mut bpf_sock) {
    // SAFETY: `sk` is this context's socket, not null, and this a field that every program may read.
    if unsafe { load(&raw const (*sk).bound_dev_if) } == NO_DEVICE {
        set(ops, SO_BINDTOIFINDEX, 0);
    }
}

#[inline(always)]
fn set(ops: *mut bpf_sock_ops, option: i32, value: u32) {
    let mut value = value;
    // SAFETY: `ops` is the context of the calling program, and the value is as long as it says.
    unsafe {
        bpf_setsockopt(
            ops.cast(),
            SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            size_of::<u32>() as i32,
        );
    }
}

/// Asks to be told when the socket changes its state. Without it a refused connect ends unseen.
#[inline(always)]
fn watch(ops: *mut bpf_sock_ops) {
    // SAFETY: `ops` is this program's context, and the flags a field that it may read.
    unsafe {
        let flags = load(&raw const (*ops).bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_STATE_CB_FLAG;
        bpf_sock_ops_cb_flags_set(ops, flags as i32);
    }
}

/// The application's end of a redirected connection, or any other.
#[inline(always)]
fn established(ops: *mut bpf_sock_ops, sk: *mut bpf_sock) {
    // SAFETY: `sk` is this context's socket, not null.
    let origin = unsafe { maps::origin(sk) };
    if origin.is_some_and(|origin| origin.role == Role::CLIENT) {
        bound_queue(ops);
    } else {
        // SAFETY: `ops` is this program's context.
        facts::established(sk, || unsafe { outgoing(ops) });
    }
    unshare_address(ops, sk);
}

/// Bounds what the application may have in flight towards the proxy, and with it what the kernel lets it queue when the
/// proxy does not read: two or three times the window (`tcp_sndbuf_expand`), 166 KB instead of megabytes. What moves much
/// is given more, see `widen`.
#[inline(always)]
fn bound_queue(ops: *mut bpf_sock_ops) {
    clamp_window(ops, IN_FLIGHT);
    // SAFETY: `ops` is this program's context, and the flags a field that it may read.
    unsafe {
        let flags = load(&raw const (*ops).bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_RTT_CB_FLAG;
        bpf_sock_ops_cb_flags_set(ops, flags as i32);
    }
}

/// Asked with every round trip that is measured, until the connection has moved so much that a reader was there for it.
/// A larger window then lets the kernel move larger packets, which bulk needs; and a reader that stops after that has let
/// buffers grow by as much without a proxy.
#[inline(always)]
fn widen(ops: *mut bpf_sock_ops) {
    // SAFETY: `ops` is this program's context, and these are fields that it may read.
    unsafe {
        if load(&raw const (*ops).bytes_acked) < BULK {
            return;
        }
        let flags = load(&raw const (*ops).bpf_sock_ops_cb_flags) & !BPF_SOCK_OPS_RTT_CB_FLAG;
        bpf_sock_ops_cb_flags_set(ops, flags as i32);
    }
    clamp_window(ops, IN_FLIGHT_BULK);
}

#[inline(always)]
fn clamp_window(ops: *mut bpf_sock_ops, mut segments: u32) {
    // SAFETY: `ops` is this program's context, and the value is as long as it says.
    unsafe {
        bpf_setsockopt(
            ops.cast(),
            SOL_TCP,
            TCP_BPF_SNDCWND_CLAMP,
            (&raw mut segments).cast(),
            size_of::<u32>() as i32,
        );
    }
}

/// Gives the socket back the option that the connect hook has changed.
#[inline(always)]
fn unshare_address(ops: *mut bpf_sock_ops, sk: *mut bpf_sock) {
    // SAFETY: `sk` is this context's socket, not null.
    let origin = unsafe { maps::origin(sk) };
    if let Some(origin) = origin
        && origin.role == Role::CLIENT
        && origin.flags & Origin::REUSE != 0
    {
        origin.flags &= !Origin::REUSE;
        set(ops, SO_REUSEADDR, 0);
    }
}

/// Refused, reset, given up or claimed long ago: the tuple is free for another connection now.
#[inline(always)]
fn closed(ops: *mut bpf_sock_ops, old: u32) {
    // SAFETY: `ops` is this program's context.
    let tuple = unsafe { outgoing(ops) };
    let Some(pod) = Pod::of(tuple.netns) else { return };
    if old == BPF_TCP_LISTEN {
        // SAFETY: `ops` is this program's context.
        listen::ended(pod, unsafe { bpf_get_socket_cookie(ops.cast()) });
        return;
    }
    forget_presented(pod, &tuple);
    if let Some(pending) = pending::end(pod, &tuple)
        && pending.stage.is_waiting()
    {
        let (shard, sequence) = (pending.stage.shard(), pending.stage.sequence());
        // Without room in its ring the shard finds out when it approves the SYN, or looks for it.
        pod.tell(shard, tuple, pending.origin, sequence, Event::GONE);
    }
}

/// On the accepted socket, before its owner can see it.
#[inline(always)]
fn claim(ctx: &SockOpsContext, sk: *mut bpf_sock) {
    // SAFETY: `ops` is this program's context.
    let (tuple, family) = unsafe { (incoming(ctx.ops), load(&raw const (*ctx.ops).family)) };
    let Some(pod) = Pod::of(tuple.netns) else { return };
    let at = Endpoint {
        ip: tuple.destination,
        port: tuple.destination_port,
    };
    let outbound = verdict::is_redirect4(at);
    if outbound || verdict::is_spread(at) {
        claim_destination(ctx, pod, sk, tuple, outbound);
    }
    if !outbound {
        claim_client(ctx.ops, pod, sk, tuple, family);
        if facts::accepted(pod, sk, &tuple) {
            watch(ctx.ops);
        }
    }
}

/// The proxy's end of a redirected connection; `outbound`: it cannot be anything else.
#[inline(always)]
fn claim_destination(ctx: &SockOpsContext, pod: Pod, sk: *mut bpf_sock, tuple: Tuple, outbound: bool) {
    let Some(pending) = pending::end(pod, &tuple) else {
        if outbound {
            pod.count(Counter::Unclaimed);
            debug!(
                ctx,
                "connection from port {} has no original destination",
                tuple.source_port.get()
            );
        }
        return;
    };
    let mut origin = pending.origin;
    origin.role = Role::ACCEPTED;
    // SAFETY: `sk` is this context's socket, not null.
    let stored = unsafe { maps::set_origin(sk, &mut origin) };
    if !stored {
        pod.count(Counter::ClaimFailed);
    } else if origin.flags & Origin::PROBE == 0 {
        pod.count(Counter::Claimed);
    }
    if pending.stage.is_waiting() {
        pod.count(Counter::Approved);
    }
}

/// The application's end of a connection from the proxy.
#[inline(always)]
fn claim_client(ops: *mut bpf_sock_ops, pod: Pod, sk: *mut bpf_sock, tuple: Tuple, family: u32) {
    let Some(presented) = pod.presented() else { return };
    // SAFETY: copied before anything else touches the map.
    let Some(mut origin) = (unsafe { presented.get(tuple).copied() }) else {
        return;
    };
    let _: Result<(), i32> = presented.remove(tuple);
    bound_queue(ops);
    let (shown, counter) = verdict::presented(origin.ip, family == AF_INET);
    origin.ip = shown;
    // SAFETY: `sk` is this context's socket, not null.
    let stored = unsafe { maps::set_origin(sk, &mut origin) };
    if !stored {
        pod.count(Counter::PresentFailed);
    } else if origin.role == Role::PRESENTED {
        pod.count(counter);
    }
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

#[derive(Clone, Copy)]
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
