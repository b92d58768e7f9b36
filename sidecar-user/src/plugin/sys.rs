//! The width of the terminal that standard output is. The only unsafe code of the plugin.

use std::os::fd::{AsRawFd, BorrowedFd};

nix::ioctl_read_bad!(window_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);

/// `None`: it is no terminal, or one that does not know.
pub(super) fn columns(terminal: BorrowedFd<'_>) -> Option<usize> {
    let mut size = nix::libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes a `winsize` at the pointer, which is that of a local one; the descriptor is borrowed.
    unsafe { window_size(terminal.as_raw_fd(), &raw mut size) }.ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}
