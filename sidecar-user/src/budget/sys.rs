//! The one call of this room that is not Rust's.

use nix::libc;

pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes no pointer, is safe to call from any thread and only returns free pages.
    unsafe {
        libc::malloc_trim(0);
    }
}
