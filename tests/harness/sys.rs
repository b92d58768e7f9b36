//! The unsafe code of the harness: what a child does between fork and exec, a union of ptrace(2), and questions by bpf(2). Decides nothing.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_no_new_privs;
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

/// Makes the command start as a container runtime starts one with a read-only root and a seccomp filter. It may write below one
/// directory. Comes after [`start_inside`], which needs what is taken away here.
pub(crate) fn confine(
    command: &mut Command,
    writable: &Path,
    filter: Vec<libc::sock_filter>,
) -> io::Result<()> {
    let writable = CString::new(writable.as_os_str().as_bytes())?;
    let steps = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let enter = move || -> io::Result<()> {
        let nothing = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS)?;
        // What is unmounted outside goes here too, so that nothing is busy for this process.
        mount(
            nothing,
            "/",
            nothing,
            MsFlags::MS_SLAVE | MsFlags::MS_REC,
            nothing,
        )?;
        mount(Some(&*writable), &*writable, nothing, MsFlags::MS_BIND, nothing)?;
        let (set, cleared) = (libc::MOUNT_ATTR_RDONLY, 0);
        set_mount_attributes(c"/", libc::AT_RECURSIVE, set, cleared)?;
        set_mount_attributes(&writable, 0, cleared, set)?;
        set_no_new_privs()?;
        let program = libc::sock_fprog {
            len: steps,
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel reads as many steps as the vector has, which lives as long as this closure, and writes none.
        let installed = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        match installed {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: as in `start_inside`; the paths and the filter were made by the parent.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

fn set_mount_attributes(at: &CStr, flags: libc::c_int, set: u64, cleared: u64) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: cleared,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path ends with a zero, the size is that of the attributes, and the kernel keeps neither.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            at.as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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

/// A program that is attached by a link.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) program: String,
    pub(crate) to: Place,
}

/// By the kernel's numbers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Cgroup(u64),
    Netns(u64),
    Other,
}

/// Every link that this kernel has (bpf(2)).
pub(crate) fn attached() -> io::Result<Vec<Attached>> {
    const PROG_GET_FD_BY_ID: libc::c_int = 13;
    const LINK_GET_FD_BY_ID: libc::c_int = 30;
    const LINK_GET_NEXT_ID: libc::c_int = 31;
    const CGROUP: u32 = 3;
    const NETNS: u32 = 5;
    // Of struct bpf_link_info and struct bpf_prog_info.
    const PLACE: usize = 16;
    const NAME: std::ops::Range<usize> = 64..80;
    let word = |info: &[u8], at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes"));
    let is_gone = |error: &io::Error| error.raw_os_error() == Some(libc::ENOENT);
    let (mut found, mut id) = (Vec::new(), 0);
    loop {
        let mut attr = [id, 0, 0, 0];
        match bpf(LINK_GET_NEXT_ID, &mut attr) {
            Err(error) if is_gone(&error) => return Ok(found),
            next => next?,
        };
        id = attr[1];
        let link = match info(LINK_GET_FD_BY_ID, id) {
            Err(error) if is_gone(&error) => continue,
            link => link?,
        };
        let program = match info(PROG_GET_FD_BY_ID, word(&link, 8)) {
            Err(error) if is_gone(&error) => continue,
            program => program?,
        };
        let name: Vec<u8> = program[NAME]
            .iter()
            .copied()
            .take_while(|byte| *byte != 0)
            .collect();
        let to = match word(&link, 0) {
            CGROUP => Place::Cgroup(u64::from_ne_bytes(
                link[PLACE..PLACE + 8].try_into().expect("eight bytes"),
            )),
            NETNS => Place::Netns(word(&link, PLACE).into()),
            _ => Place::Other,
        };
        found.push(Attached {
            program: String::from_utf8_lossy(&name).into_owned(),
            to,
        });
    }
}

/// What the kernel says of the object that `open` opens by its id.
fn info(open: libc::c_int, id: u32) -> io::Result<[u8; 256]> {
    const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    let descriptor = bpf(open, &mut [id, 0, 0, 0])?;
    // SAFETY: the kernel has just made this descriptor for us.
    let object = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let mut info = [0; 256];
    let at = info.as_mut_ptr() as u64;
    let number = object.as_raw_fd().cast_unsigned();
    bpf(
        OBJ_GET_INFO_BY_FD,
        &mut [number, info.len() as u32, at as u32, (at >> 32) as u32],
    )?;
    Ok(info)
}

fn bpf(command: libc::c_int, attr: &mut [u32; 4]) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes `attr`, whose size it is told. Of the commands here one is also given a buffer, of 256
    // bytes as `attr` says, which outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    match i32::try_from(done) {
        Ok(done) if done >= 0 => Ok(done),
        _ => Err(io::Error::last_os_error()),
    }
}
