//! One file a hook. Every context field is read with [`load`] and written with [`store`].

mod connect;
mod getpeername;
mod getsockname;
mod getsockopt;
mod hold;
mod listen;
mod sk_lookup;
mod sockops;

const SOL_SOCKET: i32 = 1;
const SO_REUSEADDR: i32 = 2;
const SO_BINDTOIFINDEX: i32 = 62;

/// What a cgroup hook answers.
const ALLOW: i32 = 1;
const DENY: i32 = 0;

/// Reads a context field, unmerged and in place. LLVM turns a choice between two fields into arithmetic on the
/// context pointer ("dereference of modified ctx ptr"), so callers load every field first and choose afterwards.
#[inline(always)]
unsafe fn load<T: Copy>(field: *const T) -> T {
    // SAFETY: the caller points into the context it was called with.
    unsafe { core::ptr::read_volatile(field) }
}

/// Writes a context field. Two neighbours written plainly become one wide store ("invalid bpf_context access").
#[inline(always)]
unsafe fn store<T: Copy>(field: *mut T, value: T) {
    // SAFETY: the caller points into the context it was called with.
    unsafe { core::ptr::write_volatile(field, value) }
}
