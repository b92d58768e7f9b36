//! The unsafe code of the harness: what a child does between fork and exec, and a union of ptrace(2). Decides nothing.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::SigSet;
use nix::unistd::write;

/// Makes the command start inside a network namespace and a cgroup (its open `cgroup.procs`).
pub(crate) fn start_inside(command: &mut Command, netns: Arc<File>, cgroup_procs: Arc<File>) {
    let enter = move || -> io::Result<()> {
        // "0" is the writer itself. The cgroup comes first: a socket belongs to the cgroup it is made in.
        write(&*cgroup_procs, b"0")?;
        setns(&*netns, CloneFlags::CLONE_NEWNET)?;
        // A parent that waits for signals has blocked them, and a child inherits that.
        SigSet::empty().thread_set_mask()?;
        Ok(())
    };
    // SAFETY: between fork and exec of a threaded program only async-signal-safe calls are sound. The closure makes
    // three system calls on descriptors opened by the parent; it allocates nothing, takes no lock and cannot panic.
    unsafe { command.pre_exec(enter) };
}

/// The number of the system call that a thread is about to make and its arguments, if that is why it has stopped.
pub(crate) fn entered(stop: &libc::ptrace_syscall_info) -> Option<(u64, [u64; 6])> {
    if stop.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: of the union the kernel has filled the member that `op` names.
    let entry = unsafe { stop.u.entry };
    Some((entry.nr, entry.args))
}
