//! Tells the proxy of connections that never come to it: when they are there, and when they end, how long they took and what
//! TCP knows of them; and of those that the connect hooks refuse.
//!
//! Asked at a connection's beginning, when it is established and when it ends, never for a packet. The proxy's own
//! sockets are not reported: it reads them itself.

use core::ptr;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_ops};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_query};
use aya_ebpf::maps::ring_buf::RingBufEntry;
use bytemuck::Zeroable;
use sidecar_ebpf::abi::{Action, Counter, Direction, LeftAlone, RING_BYTES, Role, Tuple, Watched};
use sidecar_ebpf::addr::{Endpoint, Ip};
use sidecar_ebpf::verdict;

use super::load;
use crate::maps::{self, Pod};

/// `BPF_RB_AVAIL_DATA`: bytes that were not read yet.
const UNREAD: u64 = 0;

/// An application's connect() that was not redirected. True: it is to be watched.
#[inline(always)]
pub(super) fn begun(pod: Pod, sk: *mut bpf_sock, tuple: &Tuple) -> bool {
    let is_local = |settings| verdict::is_local(settings, tuple.destination);
    pod.settings().is_some_and(|settings| !is_local(settings)) && remember(pod, sk, Direction::OUTBOUND, 0)
}

/// A connection to an application that policy has left alone. True: it is to be watched.
#[inline(always)]
pub(super) fn accepted(pod: Pod, sk: *mut bpf_sock, tuple: &Tuple) -> bool {
    let Some(settings) = pod.settings() else {
        return false;
    };
    // SAFETY: the caller's socket, not null.
    let claimed = unsafe { maps::origin(sk) }.is_some();
    if claimed || verdict::is_local(settings, tuple.source) {
        return false;
    }
    let policy = pod.policy(settings, Direction::INBOUND, tuple.source);
    let range = verdict::of_port(policy, tuple.destination_port);
    if range.action != Action::LEAVE || !remember(pod, sk, Direction::INBOUND, now()) {
        return false;
    }
    let turned = Tuple {
        source: tuple.destination,
        destination: tuple.source,
        source_port: tuple.destination_port,
        destination_port: tuple.source_port,
        ..*tuple
    };
    opened(pod, sk, turned, Direction::INBOUND, 0);
    true
}

/// `tuple` is asked for where there is something to tell.
#[inline(always)]
pub(super) fn established(sk: *mut bpf_sock, tuple: impl FnOnce() -> Tuple) {
    // SAFETY: the caller's socket, not null.
    if let Some(watched) = unsafe { maps::watched(sk) }
        && watched.began != 0
    {
        let now = now();
        watched.established = now;
        let took = now.wrapping_sub(watched.began).max(1);
        let tuple = tuple();
        if let Some(pod) = Pod::of(tuple.netns) {
            opened(pod, sk, tuple, Direction::OUTBOUND, took);
        }
    }
}

#[inline(always)]
fn opened(pod: Pod, sk: *mut bpf_sock, tuple: Tuple, direction: Direction, took: u64) {
    tell(pod, &tuple, |record| {
        record.lasted = took;
        record.connect = took;
        record.direction = direction;
        record.open = 1;
        // SAFETY: the caller's socket, not null, and a field that every program may read.
        record.device = unsafe { load(&raw const (*sk).bound_dev_if) };
    });
}

/// `tuple` is asked for where there is something to tell.
#[inline(always)]
pub(super) fn ended(ops: *mut bpf_sock_ops, sk: *mut bpf_sock, state: u32, tuple: impl FnOnce() -> Tuple) {
    // SAFETY: the caller's socket, not null.
    let Some(watched) = (unsafe { maps::watched(sk) }) else {
        return;
    };
    let Watched {
        began,
        established,
        direction,
        ..
    } = *watched;
    // A socket may be used again after a connect() that failed.
    watched.began = 0;
    watched.established = 0;
    if began == 0 {
        return;
    }
    // SAFETY: as above.
    if let Some(origin) = unsafe { maps::origin(sk) }
        && origin.role != Role::NONE
    {
        return;
    }
    let now = now();
    let tuple = tuple();
    let Some(pod) = Pod::of(tuple.netns) else {
        return;
    };
    tell(pod, &tuple, |record| {
        record.lasted = now.wrapping_sub(began);
        if established != 0 {
            record.connect = established.wrapping_sub(began).max(1);
        }
        record.direction = direction;
        record.state = state as u8;
        // SAFETY: `ops` is the caller's context, `sk` its socket, not null, and these are fields that it may read.
        unsafe {
            record.bytes_acked = load(&raw const (*ops).bytes_acked);
            record.bytes_received = load(&raw const (*ops).bytes_received);
            record.srtt = load(&raw const (*ops).srtt_us);
            record.min_rtt = load(&raw const (*ops).rtt_min);
            record.segments_sent = load(&raw const (*ops).segs_out);
            record.segments_received = load(&raw const (*ops).segs_in);
            record.retransmitted = load(&raw const (*ops).total_retrans);
            record.congestion_window = load(&raw const (*ops).snd_cwnd);
            record.segment_size = load(&raw const (*ops).mss_cache);
            record.unacked = load(&raw const (*ops).packets_out);
            record.delivered = load(&raw const (*ops).rate_delivered);
            record.interval = load(&raw const (*ops).rate_interval_us);
            record.device = load(&raw const (*sk).bound_dev_if);
        }
    });
}

/// An application's connect() that the programs have refused.
#[inline(always)]
pub(super) fn refused(pod: Pod, from: Ip, to: Endpoint, why: Counter) {
    // A probe is the proxy's own, and settings of another version do not say who reads.
    if matches!(why, Counter::DeniedProbe | Counter::DeniedSettings) {
        return;
    }
    let tuple = Tuple {
        source: from,
        destination: to.ip,
        destination_port: to.port,
        ..Tuple::zeroed()
    };
    tell(pod, &tuple, |record| {
        record.direction = Direction::OUTBOUND;
        record.refused = why as u8 + 1;
    });
}

/// Tells a shard of the proxy that new connections go to. The record is made in the ring: programs have 512 bytes of stack.
#[inline(always)]
fn tell(pod: Pod, tuple: &Tuple, fill: impl FnOnce(&mut LeftAlone)) {
    let Some(settings) = pod.settings() else {
        return;
    };
    let source = Endpoint {
        ip: tuple.source,
        port: tuple.source_port,
    };
    let destination = Endpoint {
        ip: tuple.destination,
        port: tuple.destination_port,
    };
    let shard = verdict::shard(source, destination, settings.shards.into());
    let Some(mut entry) = reserve(pod, u32::from(settings.first_shard) + shard) else {
        pod.count(Counter::FactsLost);
        return;
    };
    let record = entry.write(LeftAlone {
        tuple: *tuple,
        ..LeftAlone::zeroed()
    });
    fill(record);
    entry.submit(0);
}

#[inline(always)]
fn reserve(pod: Pod, shard: u32) -> Option<RingBufEntry<LeftAlone>> {
    let ring = pod.ring(shard)?;
    // SAFETY: the helper takes a ring and a number.
    let unread = unsafe { bpf_ringbuf_query(ptr::from_ref(ring).cast_mut().cast(), UNREAD) };
    // The other half is for SYNs, which wait for theirs to be read.
    if unread >= RING_BYTES as u64 / 2 {
        return None;
    }
    ring.reserve_untyped::<LeftAlone>(0)
}

#[inline(always)]
fn remember(pod: Pod, sk: *mut bpf_sock, direction: Direction, established: u64) -> bool {
    let mut watched = Watched {
        began: now(),
        established,
        direction,
        reserved: [0; 7],
    };
    // SAFETY: the caller's socket, not null.
    let remembered = unsafe { maps::set_watched(sk, &mut watched) };
    if !remembered {
        pod.count(Counter::FactsLost);
    }
    remembered
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}
