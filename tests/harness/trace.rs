//! Counts the system calls of a running process, as `strace -c -f` does, with ptrace(2).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys;

/// How often each system call was made, by its number.
pub type Calls = BTreeMap<u64, usize>;

/// The system calls that the process makes, on all its threads, while something is done. It is slowed down meanwhile, and
/// nothing else.
pub fn system_calls<T>(pid: u32, work: impl FnOnce() -> Result<T>) -> Result<(T, Calls)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (ready, begun) = mpsc::channel();
        // The kernel lets only the thread that traces ask, and lets go of all when it ends.
        let tracer = scope.spawn(|| count(pid, &done, ready));
        let worked = begun
            .recv()
            .context("the tracer has failed")
            .and_then(|()| work());
        done.store(true, Ordering::Release);
        let calls = tracer.join().expect("the tracer does not panic")?;
        Ok((worked?, calls))
    })
}

fn count(pid: u32, done: &AtomicBool, ready: mpsc::Sender<()>) -> Result<Calls> {
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
    for thread in threads(pid)? {
        ptrace::seize(thread, options).with_context(|| format!("trace thread {thread}"))?;
        ptrace::interrupt(thread)?;
    }
    ready.send(())?;
    let mut calls = Calls::new();
    // Some thread wakes up within a second: timers run.
    while !done.load(Ordering::Acquire) {
        // Children of other threads are theirs to wait for.
        let stopped = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD))?;
        let (thread, signal) = match stopped {
            WaitStatus::PtraceSyscall(thread) => {
                if let Some((number, _)) = sys::entered(&ptrace::syscall_info(thread)?) {
                    *calls.entry(number).or_default() += 1;
                }
                (thread, None)
            }
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            _ => continue,
        };
        ptrace::syscall(thread, signal)?;
    }
    Ok(calls)
}

fn threads(pid: u32) -> Result<BTreeSet<Pid>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the process has gone")?;
    Ok(tasks
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .collect())
}
