//! Halts a process when its main thread is about to make a certain system call, with ptrace(2): whatever it has done until
//! then is done, and it does nothing more.

use std::io::IoSliceMut;

use anyhow::{Context, Result, bail};
use nix::libc::{SYS_bpf, SYS_sendmsg};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys;

/// bpf(2): the program of a link is replaced.
const BPF_LINK_UPDATE: u64 = 29;
/// Of messages, far more than is looked for.
const BEGINNING: usize = 64;

/// A system call that has not been made yet.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    process: Pid,
    number: u64,
    arguments: [u64; 6],
}

/// A process of which no thread runs. Only the thread that has halted it can let it go on; killing it needs no word to it.
#[derive(Debug)]
#[must_use]
pub struct Halted(Pid);

/// Traces the process, starts what makes it go on from where it waits, and halts it at the first call that is wanted.
pub fn halt(
    pid: u32,
    begin: impl FnOnce() -> Result<()>,
    mut wanted: impl FnMut(&Call) -> bool,
) -> Result<Halted> {
    let process = Pid::from_raw(pid.cast_signed());
    ptrace::seize(process, Options::PTRACE_O_TRACESYSGOOD).context("trace a process")?;
    ptrace::interrupt(process)?;
    begin()?;
    loop {
        let signal = match waitpid(process, Some(WaitPidFlag::__WALL))? {
            WaitStatus::PtraceSyscall(_) => {
                let entered = sys::entered(&ptrace::syscall_info(process)?);
                let call = entered.map(|(number, arguments)| Call {
                    process,
                    number,
                    arguments,
                });
                if call.is_some_and(|call| wanted(&call)) {
                    kill(process, Signal::SIGSTOP)?;
                    return Ok(Halted(process));
                }
                None
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            WaitStatus::PtraceEvent(..) => None,
            ended => bail!("it has ended before: {ended:?}"),
        };
        ptrace::syscall(process, signal)?;
    }
}

impl Halted {
    pub fn release(self) -> Result<()> {
        ptrace::detach(self.0, None)?;
        Ok(kill(self.0, Signal::SIGCONT)?)
    }
}

impl Call {
    pub fn is_bpf(&self) -> bool {
        self.number == SYS_bpf as u64
    }

    pub fn replaces_a_program(&self) -> bool {
        self.is_bpf() && self.arguments[0] == BPF_LINK_UPDATE
    }

    /// Whether a message is to be sent with this at its beginning.
    pub fn says(&self, what: &str) -> bool {
        let beginning = || -> Result<Vec<u8>> {
            // struct msghdr: a pointer to the address and its length; then one to the first struct iovec.
            let iovec = self.read(self.arguments[1] + 16, 8)?;
            let iovec = self.read(u64::from_ne_bytes(iovec[..].try_into()?), 16)?;
            let (base, length) = iovec.split_at(8);
            let length = usize::from_ne_bytes(length.try_into()?);
            self.read(u64::from_ne_bytes(base.try_into()?), length.min(BEGINNING))
        };
        let is_message = self.number == SYS_sendmsg as u64;
        is_message && beginning().is_ok_and(|text| String::from_utf8_lossy(&text).contains(what))
    }

    fn read(&self, base: u64, len: usize) -> Result<Vec<u8>> {
        let mut read = vec![0; len];
        let base = usize::try_from(base)?;
        process_vm_readv(
            self.process,
            &mut [IoSliceMut::new(&mut read)],
            &[RemoteIoVec { base, len }],
        )?;
        Ok(read)
    }
}
