//! Run by the proxy, by `BPF_PROG_TEST_RUN`: lets a held connection pass, or takes that back.
//!
//! A map that user space writes takes whole entries, and would write over a connection that has come to have the same two
//! ends. This changes one word, and only where it is what the proxy believes it to be. It looks for no packet: the
//! "packet" that it is run with is the request.

use aya_ebpf::macros::socket_filter;
use aya_ebpf::programs::SkBuffContext;
use sidecar_ebpf::abi::StageChange;

use super::pending;
use crate::maps::Pod;

#[socket_filter]
pub(crate) fn or_approve(ctx: SkBuffContext) -> i64 {
    // The kernel takes an Ethernet header off before it runs the program.
    let Ok(asked) = ctx.load::<StageChange>(0) else {
        return 0;
    };
    match Pod::of(asked.tuple.netns) {
        Some(pod) if pending::change(pod, &asked.tuple, asked.from, asked.to) => i64::from(StageChange::DONE),
        _ => 0,
    }
}
