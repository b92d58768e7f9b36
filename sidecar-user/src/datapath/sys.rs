//! The system calls of the kernel door, and the bpf(2) commands that aya has no way to: links and pins. What is in maps is
//! asked in `map.rs`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_log::EbpfLogger;
use bytemuck::{Pod, Zeroable};
use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const BPF_OBJ_PIN: i32 = 6;
const BPF_OBJ_GET: i32 = 7;
const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_DETACH: i32 = 9;
const BPF_PROG_GET_FD_BY_ID: i32 = 13;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_PROG_QUERY: i32 = 16;
const BPF_LINK_CREATE: i32 = 28;
const BPF_LINK_UPDATE: i32 = 29;
const BPF_LINK_DETACH: i32 = 34;

const MAX_PROGRAMS: usize = 64;

/// The start of `struct bpf_link_info`, for links of cgroups and network namespaces.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct LinkInfo {
    kind: u32,
    id: u32,
    pub(super) program: u32,
    reserved: u32,
    target: [u32; 3],
    reserved1: u32,
}

/// What a link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// By the inode number of its directory; 0 once it is gone.
    Cgroup(u64),
    /// By its inode number; 0 once it is gone.
    Netns(u32),
    Other(u32),
}

impl LinkInfo {
    pub(super) fn target(&self) -> Target {
        const BPF_LINK_TYPE_CGROUP: u32 = 3;
        const BPF_LINK_TYPE_NETNS: u32 = 5;
        match self.kind {
            BPF_LINK_TYPE_CGROUP => Target::Cgroup(bytemuck::cast([self.target[0], self.target[1]])),
            BPF_LINK_TYPE_NETNS => Target::Netns(self.target[0]),
            other => Target::Other(other),
        }
    }

    pub(super) fn attach_type(&self) -> u32 {
        match self.target() {
            Target::Cgroup(_) => self.target[2],
            Target::Netns(_) | Target::Other(_) => self.target[1],
        }
    }
}

/// The start of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct MapInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) flags: u32,
    name: [u8; 16],
    device: [u32; 2],
    device_netns: [u64; 2],
    /// 0: none.
    pub(super) btf: u32,
    /// Of its keys and values, in that BTF.
    pub(super) types: [u32; 2],
    reserved: u32,
}

impl MapInfo {
    /// Empty where whoever made it has given none.
    pub(super) fn name(&self) -> &str {
        object_name(&self.name)
    }
}

/// The start of `struct bpf_prog_info`, up to its name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct ProgramInfo {
    pub(super) kind: u32,
    id: u32,
    before: [u64; 7],
    name: [u8; 16],
}

impl ProgramInfo {
    pub(super) fn name(&self) -> &str {
        object_name(&self.name)
    }
}

/// The kernel takes letters, digits, `_` and `.`, at most 15.
fn object_name(name: &[u8; 16]) -> &str {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(name).unwrap_or_default()
}

/// Programs that are attached to one target for one hook.
#[derive(Debug)]
pub(super) struct Attached {
    /// 0: attached so that nothing else may join.
    pub(super) flags: u32,
    pub(super) programs: Vec<u32>,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = PinAttr {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    bpf(BPF_OBJ_GET, &mut attr).map(owned)
}

/// Gives an object a file, which holds it from now on.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = PinAttr {
        path: path.as_ptr() as u64,
        fd: descriptor(object),
        flags: 0,
    };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Attaches a program to a cgroup or network namespace until the link is closed and has no pin. aya would do,
/// but lets nobody pin the link of a getsockopt program.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attr: [u32; 4] = [descriptor(program), descriptor(target), attach_type, 0];
    bpf(BPF_LINK_CREATE, &mut attr).map(owned)
}

pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    info(link)
}

pub(super) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    info(map)
}

/// The name that a program was loaded with, by its number. Takes CAP_SYS_ADMIN.
pub(super) fn program_name(id: u32) -> io::Result<String> {
    let mut attr: [u32; 3] = [id, 0, 0];
    let program = bpf(BPF_PROG_GET_FD_BY_ID, &mut attr).map(owned)?;
    Ok(program_info(program.as_fd())?.name().to_owned())
}

pub(super) fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    info(program)
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// Asks bpf(2) about a descriptor that nobody has. Fails with EBADF, or with EPERM where asking alone takes a capability.
pub(super) fn ask_of_nothing() -> io::Result<()> {
    let mut attr = InfoAttr {
        fd: u32::MAX,
        len: 0,
        info: 0,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

fn info<T: Pod>(object: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::zeroed();
    let len = u32::try_from(size_of::<T>()).expect("the kernel's info structures are a few hundred bytes");
    let mut attr = InfoAttr {
        fd: descriptor(object),
        len,
        info: &raw mut info as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// Registers a ring buffer with the current tokio runtime.
pub(super) fn watch<T: Ring>(ring: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: a ring owns its descriptor, keeps the same one for life, and closes it when dropped.
    let watched = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}

/// What [`watch`] may rely on.
pub(super) trait Ring: AsRawFd {}
impl<T> Ring for EbpfLogger<T> {}

/// A program for packets of a cgroup that lets none pass. It has no map, and two instructions.
pub(super) fn load_closed(name: &str) -> io::Result<OwnedFd> {
    const BPF_PROG_TYPE_CGROUP_SKB: u32 = 8;
    #[repr(C)]
    #[derive(Clone, Copy, Pod, Zeroable)]
    struct Attr {
        kind: u32,
        instructions: u32,
        code: u64,
        licence: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel: u32,
        flags: u32,
        name: [u8; 16],
    }
    // r0 = 0; exit
    let code: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let licence = c"GPL";
    let mut attr = Attr {
        kind: BPF_PROG_TYPE_CGROUP_SKB,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        licence: licence.as_ptr() as u64,
        ..Attr::zeroed()
    };
    for (to, from) in attr.name.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    bpf(BPF_PROG_LOAD, &mut attr).map(owned)
}

/// How a program is attached that stays without a link and without a pin, until its cgroup is removed.
pub(super) const OVERRIDABLE: u32 = 1;

pub(super) fn attach_overridably(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<()> {
    let mut attr: [u32; 4] = [descriptor(cgroup), descriptor(program), attach_type, OVERRIDABLE];
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

/// Takes off the only program that is there, which was attached so.
pub(super) fn detach_overridable(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<()> {
    let mut attr: [u32; 4] = [descriptor(cgroup), 0, attach_type, 0];
    bpf(BPF_PROG_DETACH, &mut attr).map(drop)
}

/// Attaches without a link and without letting anything join, as old tools do.
#[cfg(test)]
pub(super) fn attach_exclusively(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<()> {
    let mut attr: [u32; 4] = [descriptor(cgroup), descriptor(program), attach_type, 0];
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

/// Replaces the program of a link: connections see the old one or the new one, never none.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr: [u32; 4] = [descriptor(link), descriptor(program), 0, 0];
    bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Takes the program off its target at once. Closing the last reference does that too, but some time later.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr: [u32; 1] = [descriptor(link)];
    bpf(BPF_LINK_DETACH, &mut attr).map(drop)
}

/// The kernel's number of a socket, never used twice.
#[cfg(test)]
pub(super) fn socket_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    option(socket, libc::SOL_SOCKET, libc::SO_COOKIE)
}

/// The kernel's number of the calling thread's network namespace.
pub(super) fn netns_cookie() -> io::Result<u64> {
    /// Of `asm-generic/socket.h`, since 5.14.
    const SO_NETNS_COOKIE: i32 = 71;
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    option(socket.as_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE)
}

/// `CLONE_NEWNET` for a network namespace. To be asked of a file of nsfs only: elsewhere the number means something else.
pub(super) fn namespace_kind(namespace: BorrowedFd<'_>) -> io::Result<i32> {
    /// `NS_GET_NSTYPE` of `linux/nsfs.h`, since 4.11.
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: a descriptor and a number that takes no argument, no memory.
    match unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) } {
        -1 => Err(io::Error::last_os_error()),
        kind => Ok(kind),
    }
}

pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: two numbers, no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(fd) {
        Ok(fd) if fd >= 0 => Ok(owned(fd)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Fails with ESRCH once the process has ended and was waited for, so that another may have its number. A process that may not be
/// signalled (EPERM: it is another user's, and CAP_KILL is missing) is there.
pub(super) fn pidfd_exists(process: BorrowedFd<'_>) -> io::Result<()> {
    let no_signal = 0;
    // SAFETY: a descriptor, two numbers, and a null pointer, which stands for no information.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            no_signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match io::Error::last_os_error() {
        _ if failed == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        error => Err(error),
    }
}

/// Returns once every program that is running now has ended. `membarrier(MEMBARRIER_CMD_GLOBAL)` is an RCU grace
/// period, and programs run within RCU. Fails where the kernel keeps CPUs free of the tick (`nohz_full`).
pub(super) fn wait_for_programs() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: three numbers, no memory.
    let failed = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0_u32, 0) };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes the program the filter of a socket, in the place of any other.
pub(super) fn attach_filter(socket: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_BPF,
        &program.as_raw_fd(),
    )
}

/// The kernel, or a program of the cgroup, reads as many bytes as the value has.
pub(super) fn set_option<T>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).expect("options are small");
    // SAFETY: the kernel reads the bytes of `value`, and no more.
    let failed =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), len) };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// An option that is exactly as long as its type.
pub(super) fn option<T: Pod>(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<T> {
    let mut value = T::zeroed();
    let size = libc::socklen_t::try_from(size_of::<T>()).expect("options are small");
    let mut len = size;
    // SAFETY: the kernel writes at most `len` bytes to `value`, of which any are one.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    match failed {
        0 if len == size => Ok(value),
        0 => Err(io::ErrorKind::InvalidData.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[derive(Clone, Copy)]
pub(super) enum Scope {
    /// What is attached to the target itself, a cgroup's directory or a network namespace.
    Target,
    /// All that runs for a cgroup, with the programs of those above it.
    Effective,
}

/// In the order in which they run.
pub(super) fn attached(target: BorrowedFd<'_>, attach_type: u32, scope: Scope) -> io::Result<Attached> {
    const BPF_F_QUERY_EFFECTIVE: u32 = 1;
    #[repr(C)]
    #[derive(Clone, Copy, Pod, Zeroable)]
    struct Attr {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        reserved: u32,
        /// `prog_attach_flags`, `link_ids`, `link_attach_flags` and `revision`, which stay null.
        more: [u64; 4],
    }
    let mut programs = vec![0_u32; MAX_PROGRAMS];
    let mut attr = Attr {
        target: descriptor(target),
        attach_type,
        query_flags: match scope {
            Scope::Target => 0,
            Scope::Effective => BPF_F_QUERY_EFFECTIVE,
        },
        programs: programs.as_mut_ptr() as u64,
        count: programs.len() as u32,
        ..Attr::zeroed()
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    programs.truncate(attr.count as usize);
    Ok(Attached {
        flags: attr.attach_flags,
        programs,
    })
}

pub(super) fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass the new descriptor that a command has just returned and nobody else knows.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub(super) fn descriptor(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Callers keep what their attribute points to alive across the call, and of the size that the attribute says, or that
/// `map.rs` has asked the kernel for.
pub(super) fn bpf<T: Pod>(command: i32, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attr` is initialised memory of the size given; see above for what it points to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(RawFd::try_from(result).expect("the kernel returns descriptors and zero"))
}
