//! Connections on their way to the proxy, and the only places where their entries change.
//!
//! The kernel gives the memory of an entry that was removed to the next one at once, also while a program looks at it. So
//! nothing is written to an entry but its stage, and that only where it is still what was read: each connection has
//! another one.

use core::arch::asm;
use core::ptr;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use sidecar_ebpf::abi::{Origin, Pending, Stage, Tuple};

use super::atomic;
use crate::maps::Pod;

/// As often as others may change the stage of a connection that ends: the filter, and the proxy.
const ATTEMPTS: u32 = 4;

/// An entry as it was found.
pub(super) struct Entry {
    at: *mut Pending,
    pub(super) origin: Origin,
    pub(super) stage: Stage,
}

/// Before the SYN leaves. What an earlier connection has left under the tuple is gone. False where there is no room.
#[inline(always)]
pub(super) fn publish(pod: Pod, tuple: &Tuple, origin: &Origin) -> bool {
    let Some(map) = pod.pending() else {
        return false;
    };
    // SAFETY: the helper takes nothing.
    let nonce = unsafe { bpf_get_prandom_u32() };
    let pending = Pending {
        origin: *origin,
        stage: Stage::published(nonce),
    };
    let published = map.insert(tuple, &pending, u64::from(BPF_ANY)).is_ok();
    if !published {
        let _: Result<(), i32> = map.remove(tuple);
    }
    published
}

#[inline(always)]
pub(super) fn find(pod: Pod, tuple: &Tuple) -> Option<Entry> {
    let at = pod.pending()?.get_ptr_mut(tuple)?;
    // SAFETY: a value of the map, whose memory stays while the program runs. Where another entry has got it meanwhile,
    // `becomes` notices.
    let (stage, origin) = unsafe {
        let stage = ptr::read_volatile(&raw const (*at).stage);
        // The origin is read after the stage, whatever the compiler thinks of it.
        asm!("");
        (stage, (*at).origin)
    };
    (stage != Stage::OVER).then_some(Entry { at, origin, stage })
}

impl Entry {
    /// False: somebody else was faster, and the connection is in another stage or over.
    #[inline(always)]
    pub(super) fn becomes(&self, next: Stage) -> bool {
        exchange(self.at, self.stage, next)
    }
}

/// Whether the connection went from the one stage to the other now, or had done so before.
#[inline(always)]
pub(super) fn change(pod: Pod, tuple: &Tuple, from: Stage, to: Stage) -> bool {
    match pod.pending().and_then(|map| map.get_ptr_mut(tuple)) {
        Some(at) => exchange(at, from, to) || exchange(at, to, to),
        None => false,
    }
}

/// Takes the connection out: it is accepted, or has ended. `None`: there was none, or somebody else has taken it.
#[inline(always)]
pub(super) fn end(pod: Pod, tuple: &Tuple) -> Option<Pending> {
    for _ in 0..ATTEMPTS {
        let entry = find(pod, tuple)?;
        if entry.becomes(Stage::OVER) {
            remove(pod, tuple);
            let Entry { origin, stage, .. } = entry;
            return Some(Pending { origin, stage });
        }
    }
    // Not left behind, for nobody would remove it.
    remove(pod, tuple);
    None
}

#[inline(always)]
pub(super) fn remove(pod: Pod, tuple: &Tuple) {
    if let Some(map) = pod.pending() {
        let _: Result<(), i32> = map.remove(tuple);
    }
}

#[inline(always)]
fn exchange(at: *mut Pending, from: Stage, to: Stage) -> bool {
    // SAFETY: a value of the map, whose stage is aligned to 8 bytes as the map's values are.
    unsafe { atomic::exchange((&raw mut (*at).stage).cast(), from.word(), to.word()) }
}
