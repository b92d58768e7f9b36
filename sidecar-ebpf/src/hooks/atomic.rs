//! Atomic operations on map values. The BPF target of Rust has no atomic types, though every kernel that can run these programs
//! has the instructions.

use core::arch::asm;

/// # Safety
/// `to` points to a map value, and is aligned.
#[inline(always)]
pub(crate) unsafe fn add_u64(to: *mut u64, by: u64) {
    // SAFETY: as the caller's.
    unsafe { asm!("lock *(u64 *)({to} + 0) += {by}", to = in(reg) to, by = in(reg) by) };
}

/// Whether the value was `from`. Then it is `to` now; otherwise it is unchanged.
///
/// # Safety
/// As for [`add_u64`].
#[inline(always)]
pub(super) unsafe fn exchange(at: *mut u64, from: u64, to: u64) -> bool {
    let mut before = from;
    // SAFETY: as the caller's.
    unsafe {
        asm!("r0 = cmpxchg_64({at} + 0, r0, {to})", at = in(reg) at, to = in(reg) to, inout("r0") before);
    }
    before == from
}
