//! The memory of a map, shared with the kernel by mmap(2) of the map's descriptor, which takes no bpf(2).
//!
//! Programs and other processes change it at any time, so it is read and written as atomic words. Knows nothing of what is in
//! it: [`Mapped`](super::mapped::Mapped) gives it types, [`Ring`](super::ring::Ring) takes records out.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

use nix::libc;

/// What a mapping lets this process do. The kernel holds it to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Pages of a map, for as long as this lives: the mapping holds the map, too.
#[derive(Debug)]
pub(super) struct Memory {
    start: NonNull<AtomicU64>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process and to no thread, and is only touched by atomic operations.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `bytes` from `offset` on, which begins a page, rounded up to whole pages. The kernel refuses (EINVAL) what a map does not
    /// have.
    pub(super) fn of(map: BorrowedFd<'_>, offset: usize, bytes: usize, access: Access) -> io::Result<Self> {
        let bytes = bytes.next_multiple_of(page());
        let rights = match access {
            Access::Read => libc::PROT_READ,
            Access::Write => libc::PROT_READ | libc::PROT_WRITE,
        };
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address that the kernel chooses takes no memory that is in use.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                rights,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, bytes })
    }

    /// Refuses a map that has more than `bytes`, which are whole pages. By asking for the page after them: of a map the kernel
    /// gives none that is not there, while a file, or a device, has pages without end.
    pub(super) fn ends_after(map: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
        match Self::of(map, bytes, page(), Access::Read) {
            Ok(_) => Err(io::Error::other("it is larger")),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Words of a mapping with [`Access::Read`] are not to be stored to: the kernel ends a process that does.
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: `bytes` from `start` on, which begins a page, are mapped until `self` is dropped. Maps do not shrink. Others
        // change the words meanwhile, which is what atomics are for.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes / size_of::<AtomicU64>()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and nobody has a reference any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Bytes of a page, in which the kernel maps.
pub(super) fn page() -> usize {
    // SAFETY: a number, no memory.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).expect("every Linux has a page size")
}
