//! The filter of the outbound listeners: a SYN waits here until its upstream has answered, so that connect() gives
//! the answer that it would give without the proxy.
//!
//! A SYN that may not pass yet is dropped without a word, as on a slow network; the proxy is told through the ring
//! of the shard whose listener it came to. When the upstream is there the proxy approves the connection (`approve.rs`) and
//! sends the SYN again. Does not refuse: that takes a packet, which is the proxy's to send.

use core::arch::asm;

use aya_ebpf::bindings::bpf_hdr_start_off::BPF_HDR_START_NET;
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative};
use aya_ebpf::macros::socket_filter;
use aya_ebpf::programs::SkBuffContext;
use bytemuck::Zeroable;
use sidecar_ebpf::abi::{Counter, Event, Origin, Stage, State, Tuple};
use sidecar_ebpf::addr::{Endpoint, Ip, Port};

use super::load;
use super::pending::{self, Entry};
use crate::maps::{self, Pod};

/// A filter answers how many bytes to keep.
const PASS: i64 = -1;
const DROP: i64 = 0;

const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// A TCP header without options.
const HEADER: u32 = 20;
const MAX_OPTIONS: u32 = 40;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

#[socket_filter]
pub(crate) fn or_hold(ctx: SkBuffContext) -> i64 {
    match syn(&ctx) {
        Some(syn) => hold(&ctx, &syn),
        // The last acknowledgement of a handshake, or nothing that we understand.
        None => PASS,
    }
}

/// What the filter needs of a SYN.
struct Syn {
    source: Ip,
    destination: Ip,
    source_port: Port,
    destination_port: Port,
    sequence: u32,
    /// Length of the options.
    options: u32,
    traffic_class: u8,
}

#[inline(always)]
fn hold(ctx: &SkBuffContext, syn: &Syn) -> i64 {
    let pod = Pod::own();
    let Some(settings) = pod.settings() else {
        return DROP;
    };
    if settings.hold == 0 {
        return PASS;
    }
    let tuple = Tuple {
        netns: settings.netns,
        source: syn.source,
        destination: syn.destination,
        source_port: syn.source_port,
        destination_port: syn.destination_port,
        reserved: 0,
    };
    let Some(entry) = pending::find(pod, &tuple) else {
        return refuse(pod, syn, &tuple);
    };
    let Entry { origin, stage, .. } = &entry;
    let is_ours = maps::is_own(stage.shard()) && stage.sequence() == syn.sequence;
    match stage.state() {
        State::PUBLISHED if origin.flags & Origin::OPTIMISTIC != 0 => return PASS,
        // Of the proxy that this listener belongs to, which has the upstream. An earlier one's is gone with it.
        State::APPROVED if is_ours => return PASS,
        State::HELD if is_ours => pod.count(Counter::HeldAgain),
        _ => {}
    }
    // Also where the shard knows: what it has lost, or its refusal that was lost, comes right by this. A client sends
    // its SYN again once a second at most.
    begin(ctx, pod, syn, &tuple, &entry)
}

/// Holds the SYN, and tells the shard.
#[inline(always)]
fn begin(ctx: &SkBuffContext, pod: Pod, syn: &Syn, tuple: &Tuple, entry: &Entry) -> i64 {
    let shard = shard(tuple);
    let told = Stage::held(syn.sequence, shard);
    let Some(ring) = pod.ring(shard) else {
        return DROP;
    };
    let Some(mut record) = ring.reserve_untyped::<Event>(0) else {
        pod.count(Counter::RingFull);
        if entry.stage != told && entry.becomes(Stage::untold(syn.sequence, shard)) {
            count_new(pod, entry);
        }
        return DROP;
    };
    let event = record.as_mut_ptr();
    // SAFETY: the record is as large as the event, and only its fields are written. The options' length is within
    // their part of the array, as `syn` has checked.
    let read = unsafe {
        (&raw mut (*event).tuple).write(*tuple);
        (&raw mut (*event).origin).write(entry.origin);
        (&raw mut (*event).sequence).write(syn.sequence);
        (&raw mut (*event).kind).write(if entry.stage == told {
            Event::AGAIN
        } else {
            Event::HELD
        });
        (&raw mut (*event).traffic_class).write(syn.traffic_class);
        (&raw mut (*event).tcp_len).write((HEADER + syn.options) as u8);
        (&raw mut (*event).reserved).write(0);
        header(ctx, &raw mut (*event).tcp, syn.options)
    };
    // Before the shard is told, which may answer at once. After the record has its place: where sockops sees the
    // connection end, it tells so in a later one. Where it has ended or is approved by now nobody is told.
    if read && entry.becomes(told) {
        count_new(pod, entry);
        record.submit(0);
    } else {
        record.discard(0);
    }
    DROP
}

/// Counts a connection once, however often its SYN comes.
#[inline(always)]
fn count_new(pod: Pod, before: &Entry) {
    if before.stage.state() == State::PUBLISHED {
        pod.count(Counter::Held);
    }
}

/// Nobody is redirected by this tuple any more, or none ever was: to whoever sends this the port is closed, and the shard
/// sends what says so.
#[inline(always)]
fn refuse(pod: Pod, syn: &Syn, tuple: &Tuple) -> i64 {
    let shard = shard(tuple);
    if pod.tell(shard, *tuple, Origin::zeroed(), syn.sequence, Event::STRAY) {
        pod.count(Counter::Unclaimed);
    }
    DROP
}

/// The shard whose listener this is.
#[inline(always)]
fn shard(tuple: &Tuple) -> u32 {
    let from = Endpoint {
        ip: tuple.source,
        port: tuple.source_port,
    };
    let to = Endpoint {
        ip: tuple.destination,
        port: tuple.destination_port,
    };
    maps::own_shard(from, to)
}

/// Copies the TCP header.
///
/// # Safety
/// `into` is writable.
#[inline(always)]
unsafe fn header(ctx: &SkBuffContext, into: *mut [u8; 64], options: u32) -> bool {
    let into = into.cast::<u8>();
    let skb = ctx.skb.skb.cast();
    // SAFETY: the context is this program's, and the lengths stay within the array.
    unsafe {
        if bpf_skb_load_bytes(skb, 0, into.cast(), HEADER) != 0 {
            return false;
        }
        if options == 0 {
            return true;
        }
        // 6.1 learns nothing of a number from its not being zero ("invalid access to memory, mem_size=160 off=116
        // size=0"), but an upper bound of one less is a lower bound of 1. The instruction hides the sum from LLVM,
        // which would see that it undoes the difference.
        let mut last = u64::from(options) - 1;
        asm!("{0} = {0}", inout(reg) last);
        if last >= u64::from(MAX_OPTIONS) {
            return false;
        }
        bpf_skb_load_bytes(skb, HEADER, into.add(HEADER as usize).cast(), last as u32 + 1) == 0
    }
}

/// A packet that opens a connection.
#[inline(always)]
fn syn(ctx: &SkBuffContext) -> Option<Syn> {
    // A socket's filter sees the packet from its TCP header on.
    let tcp: [u8; 20] = ctx.load(0).ok()?;
    if tcp[13] & (SYN | ACK | RST | FIN) != SYN {
        return None;
    }
    let options = (u32::from(tcp[12] >> 4) * 4).checked_sub(HEADER)?;
    // SAFETY: a field of this program's context.
    let protocol = unsafe { load(&raw const (*ctx.skb.skb).protocol) };
    let (source, destination, traffic_class) = match protocol {
        ETH_P_IP => {
            let ip: [u8; 20] = network(ctx)?;
            (
                Ip::from_v4(u32::from_ne_bytes([ip[12], ip[13], ip[14], ip[15]])),
                Ip::from_v4(u32::from_ne_bytes([ip[16], ip[17], ip[18], ip[19]])),
                ip[1],
            )
        }
        ETH_P_IPV6 => {
            let ip: [u32; 10] = network(ctx)?;
            (
                Ip::from_v6([ip[2], ip[3], ip[4], ip[5]]),
                Ip::from_v6([ip[6], ip[7], ip[8], ip[9]]),
                (u32::from_be(ip[0]) >> 20) as u8,
            )
        }
        _ => return None,
    };
    Some(Syn {
        source,
        destination,
        source_port: Port::new(u16::from_be_bytes([tcp[0], tcp[1]])),
        destination_port: Port::new(u16::from_be_bytes([tcp[2], tcp[3]])),
        sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        options,
        traffic_class,
    })
}

/// The start of the network header.
#[inline(always)]
fn network<T: Copy>(ctx: &SkBuffContext) -> Option<T> {
    let mut header = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the helper fills all of `header`, or fails.
    unsafe {
        let failed = bpf_skb_load_bytes_relative(
            ctx.skb.skb.cast(),
            0,
            header.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            BPF_HDR_START_NET,
        );
        (failed == 0).then(|| header.assume_init())
    }
}
