//! Locks that end with the process, flock(2), and who has one, as far as the kernel says.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::super::Error;

/// Locks a file for as long as it is open. Does not wait; false: another has the lock.
pub(super) fn take(file: &File, path: &Path) -> Result<bool, Error> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Error::path("the lock of", path)(error)),
    }
}

/// The process that has the lock of a file, as far as this PID namespace shows it.
pub(super) fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    find(
        &fs::read_to_string("/proc/locks").ok()?,
        metadata.dev(),
        metadata.ino(),
    )
}

/// Of the lines of proc_locks(5), such as `1: FLOCK  ADVISORY  WRITE 708 00:27:13546 0 EOF`. A process that waits for a
/// lock has `->` in the second field.
fn find(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, pid, locked, ..] if locked == file => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::makedev;

    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 11 00:27:13546 0 EOF\n\
                         2: FLOCK  ADVISORY  WRITE 708 00:27:13546 0 EOF\n\
                         2: -> FLOCK  ADVISORY  WRITE 709 00:27:13546 0 EOF\n\
                         3: FLOCK  ADVISORY  WRITE 710 103:02:13547 0 EOF\n";

    #[test]
    fn the_holder_of_a_lock_is_found_by_device_and_inode() {
        assert_eq!(find(LOCKS, makedev(0, 0x27), 13546), Some(708));
        assert_eq!(find(LOCKS, makedev(0x103, 2), 13547), Some(710));
        assert_eq!(find(LOCKS, makedev(0, 0x28), 13546), None);
        assert_eq!(find("", makedev(0, 0x27), 13546), None);
    }
}
