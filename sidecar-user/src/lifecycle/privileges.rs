//! Giving up what the kernel lets this process do (capabilities(7)). What is kept is each role's business.
//!
//! A capability belongs to a thread, and a thread starts with those of the one that starts it. So a thread that needs none
//! gives them up before it does anything else, and a role gives up its own before it starts the threads that serve.

use std::io;
use std::ops::BitOr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::libc;
use nix::sys::prctl::set_no_new_privs;

use super::sys;

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges(u64);

impl Privileges {
    pub const NONE: Self = Self(0);
    pub const NET_ADMIN: Self = Self(1 << 12);
    pub const PERFMON: Self = Self(1 << 38);
    pub const BPF: Self = Self(1 << 39);

    /// Whether the calling thread has all of these. Where the kernel does not tell, what takes them will.
    pub fn are_held(self) -> bool {
        sys::capabilities().map_or(true, |own| own.effective & self.0 == self.0)
    }
}

impl BitOr for Privileges {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Nothing that this process executes gains a privilege any more: no_new_privs is set, and the bounding set is empty. To be
/// called before there is another thread, of which each has its own.
pub fn seal() -> io::Result<()> {
    set_no_new_privs()?;
    for capability in 0.. {
        match sys::leave_bounding_set(capability) {
            Ok(()) => {}
            // The last capability that this kernel knows was the one before.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            // Takes CAP_SETPCAP. Without it the set stays as the process has got it, and no_new_privs makes nothing of it.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives up all others, in every set of the calling thread; for good. Threads that it starts from now on never have them.
/// Where that is refused the process goes on with what it has, as it was started, and says so once.
pub fn keep(kept: Privileges) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if let Err(error) = try_to_keep(kept)
        && !TOLD.swap(true, Relaxed)
    {
        tracing::warn!(
            %error,
            "capabilities are kept that serving does not need: capset(2) is refused; allow it to this process (SystemCallFilter= of its unit)"
        );
    }
}

fn try_to_keep(kept: Privileges) -> io::Result<()> {
    let own = sys::capabilities()?;
    let left = own.permitted & kept.0;
    let wanted = sys::Capabilities {
        effective: left,
        permitted: left,
        inheritable: 0,
    };
    // A process that has none may have been refused the call as well.
    if own == wanted {
        return Ok(());
    }
    sys::set_capabilities(wanted)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use nix::sched::{CloneFlags, unshare};
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

    use super::*;

    /// What a line of the calling thread's `/proc/thread-self/status` says.
    fn status(name: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    }

    fn raw_socket() -> nix::Result<()> {
        socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Icmp,
        )
        .map(drop)
    }

    #[test]
    fn a_thread_that_keeps_nothing_is_refused_what_takes_a_capability_and_so_is_each_that_it_starts() {
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(raw_socket(), Ok(()), "root may");
                keep(Privileges::NONE);
                for _ in 0..2 {
                    let refused = || {
                        assert_eq!(raw_socket(), Err(nix::Error::EPERM));
                        assert_eq!(unshare(CloneFlags::CLONE_NEWNET), Err(nix::Error::EPERM));
                        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                            assert_eq!(status(set), "0000000000000000", "{set}");
                        }
                    };
                    refused();
                    thread::scope(|inner| inner.spawn(refused).join().unwrap());
                    // What is gone does not come back.
                    keep(Privileges::NET_ADMIN | Privileges::BPF);
                }
            });
        });
        assert_ne!(status("CapEff:"), "0000000000000000", "other threads have theirs");
    }

    #[test]
    fn what_is_kept_is_kept_alone() {
        thread::scope(|scope| {
            scope.spawn(|| {
                keep(Privileges::NET_ADMIN | Privileges::BPF);
                assert_eq!(status("CapEff:"), "0000008000001000");
                keep(Privileges::BPF);
                assert_eq!(status("CapPrm:"), "0000008000000000");
            });
        });
    }

    #[test]
    fn a_thread_that_is_sealed_has_no_new_privileges_and_an_empty_bounding_set_and_what_it_had_to_use() {
        thread::scope(|scope| {
            scope.spawn(|| {
                let before = status("CapEff:");
                seal().unwrap();
                assert_eq!(status("NoNewPrivs:"), "1");
                assert_eq!(status("CapBnd:"), "0000000000000000");
                assert_eq!(status("CapEff:"), before);
                // Once more, as by one that is started so.
                keep(Privileges::NONE);
                seal().unwrap();
            });
        });
    }
}
