//! A SYN looks for its listener: plaintext from outside goes to the proxy's inbound listeners, redirected connections to its
//! outbound ones, whatever address and port they were spread to, and mesh peers to those that wait for them.
//!
//! Each shard has slots of its own, and the listeners in them share their ports with nobody: a port that others may join
//! (SO_REUSEPORT) is given connections by the kernel that are meant for the proxy.

use aya_ebpf::bindings::{BPF_SK_LOOKUP_F_NO_REUSEPORT, BPF_SK_LOOKUP_F_REPLACE, bpf_sk_lookup, sk_action};
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;
use aya_log_ebpf::debug;
use sidecar_ebpf::abi::{AppPorts, Counter, Direction, Inherited, Listener, Origin, Settings, Tuple};
use sidecar_ebpf::addr::{Endpoint, Ip, Port};
use sidecar_ebpf::verdict::{self, Arriving, InboundFacts, Lookup};

use super::{load, pending};
use crate::maps::{Pod, is_probe};

const AF_INET: u32 = 2;

#[sk_lookup]
pub(crate) fn or_sk_lookup(ctx: SkLookupContext) -> u32 {
    let pod = Pod::own();
    let Some(settings) = pod.settings() else {
        return sk_action::SK_DROP;
    };
    // SAFETY: the pointer is this program's context.
    let attempt = unsafe { read(ctx.lookup) };
    let (mut listener, mut told) = (Listener::Outbound, None);
    let redirected = || match redirected(pod, &attempt, settings) {
        Redirected::No => false,
        Redirected::Now(meant) => {
            listener = meant;
            true
        }
        Redirected::Held(by) => {
            told = Some(by);
            true
        }
    };
    let verdict = verdict::lookup(&attempt, settings, redirected, || InboundFacts {
        policy: verdict::of_port(
            pod.policy(settings, Direction::INBOUND, attempt.from),
            attempt.to.port,
        ),
        listening: listening(pod, &attempt),
        probe: is_probe(settings.netns, attempt.from, attempt.to.port),
    });
    let dropped = match verdict {
        Lookup::Pass(why) => {
            pod.count(why);
            return sk_action::SK_PASS;
        }
        Lookup::Steer if assign(&ctx, pod, &attempt, settings, Listener::Inbound) => {
            pod.count(Counter::Steered);
            return sk_action::SK_PASS;
        }
        // Whoever was told of it has its upstream, and may not be the proxy that new connections go to.
        Lookup::Redirected if told.is_some_and(|by| give(&ctx, pod, Listener::Outbound, by)) => {
            return sk_action::SK_PASS;
        }
        Lookup::Redirected if assign(&ctx, pod, &attempt, settings, listener) => {
            return sk_action::SK_PASS;
        }
        Lookup::Steer | Lookup::Redirected => Counter::DroppedListener,
        Lookup::Tunnel => {
            assign(&ctx, pod, &attempt, settings, Listener::Hbone);
            pod.count(Counter::InboundPassed);
            return sk_action::SK_PASS;
        }
        Lookup::Drop(why) => why,
    };
    pod.count(dropped);
    debug!(
        &ctx,
        "attempt from outside on port {} dropped, reason {}",
        attempt.to.port.get(),
        dropped as u32
    );
    sk_action::SK_DROP
}

/// Gives the connection to its shard's listener, and to no other that might have the same port.
#[inline(always)]
fn assign(
    ctx: &SkLookupContext,
    pod: Pod,
    attempt: &Arriving,
    settings: &Settings,
    listener: Listener,
) -> bool {
    let from = Endpoint {
        ip: attempt.from,
        port: attempt.from_port,
    };
    let shard = verdict::shard(from, attempt.to, settings.shards.into());
    give(ctx, pod, listener, u32::from(settings.first_shard) + shard)
}

/// Also where the program of an earlier proxy, which was asked first, has found that one's listener.
#[inline(always)]
fn give(ctx: &SkLookupContext, pod: Pod, listener: Listener, shard: u32) -> bool {
    let flags = BPF_SK_LOOKUP_F_NO_REUSEPORT | BPF_SK_LOOKUP_F_REPLACE;
    pod.listeners().is_some_and(|listeners| {
        listeners
            .redirect_sk_lookup(ctx, listener.slot(shard), flags.into())
            .is_ok()
    })
}

enum Redirected {
    No,
    /// To a listener of this kind. No proxy has been told of it yet.
    Now(Listener),
    /// To the outbound listener of this shard, which has been told of it.
    Held(u32),
}

/// Is this the SYN of a connection that was redirected, or the last acknowledgement of its handshake (SYN cookies)?
#[inline(always)]
fn redirected(pod: Pod, attempt: &Arriving, settings: &Settings) -> Redirected {
    let tuple = Tuple {
        netns: settings.netns,
        source: attempt.from,
        destination: attempt.to.ip,
        source_port: attempt.from_port,
        destination_port: attempt.to.port,
        reserved: 0,
    };
    match pending::find(pod, &tuple) {
        None => Redirected::No,
        Some(entry) if entry.stage.is_waiting() => Redirected::Held(entry.stage.shard()),
        // A probe is never held.
        Some(entry) if entry.origin.flags & Origin::PROBE_INBOUND != 0 => Redirected::Now(Listener::Inbound),
        Some(_) => Redirected::Now(Listener::Outbound),
    }
}

#[inline(always)]
fn listening(pod: Pod, attempt: &Arriving) -> bool {
    let (port, v4) = (attempt.to.port.get(), attempt.to.ip.is_v4());
    // SAFETY: one of the values of the array, which are there for good.
    let counted = pod
        .app_ports(AppPorts::place(port))
        .is_some_and(|ports| unsafe { *ports }.serves(port, v4));
    counted
        || pod
            .inherited(Inherited::place(port))
            .is_some_and(|ports| ports.serves(port, v4))
}

#[inline(always)]
unsafe fn read(lookup: *mut bpf_sk_lookup) -> Arriving {
    // SAFETY: the caller passes its context, and all of these are fields that it may read.
    unsafe {
        let family = load(&raw const (*lookup).family);
        let remote4 = load(&raw const (*lookup).remote_ip4);
        let local4 = load(&raw const (*lookup).local_ip4);
        let remote6 = [
            load(&raw const (*lookup).remote_ip6[0]),
            load(&raw const (*lookup).remote_ip6[1]),
            load(&raw const (*lookup).remote_ip6[2]),
            load(&raw const (*lookup).remote_ip6[3]),
        ];
        let local6 = [
            load(&raw const (*lookup).local_ip6[0]),
            load(&raw const (*lookup).local_ip6[1]),
            load(&raw const (*lookup).local_ip6[2]),
            load(&raw const (*lookup).local_ip6[3]),
        ];
        let (from, to) = if family == AF_INET {
            (Ip::from_v4(remote4), Ip::from_v4(local4))
        } else {
            (Ip::from_v6(remote6), Ip::from_v6(local6))
        };
        Arriving {
            protocol: load(&raw const (*lookup).protocol),
            from,
            from_port: Port::from_network(load(&raw const (*lookup).remote_port)),
            to: Endpoint {
                ip: to,
                port: Port::from_local_port(load(&raw const (*lookup).local_port)),
            },
            ingress: load(&raw const (*lookup).ingress_ifindex),
        }
    }
}
