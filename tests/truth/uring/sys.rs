//! A ring for one request at a time, by the three raw system calls. No batching, no polling, no registered anything.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc::{self, c_int, c_long, c_void};
use socket2::{SockAddr, SockAddrStorage, Socket};

const ENTRIES: u32 = 4;

const OP_ACCEPT: u8 = 13;
const OP_CONNECT: u8 = 16;
const OP_SEND: u8 = 26;
const OP_RECV: u8 = 27;

const OFFSET_SQ: i64 = 0;
const OFFSET_CQ: i64 = 0x800_0000;
const OFFSET_SQES: i64 = 0x1000_0000;

const ENTER_GETEVENTS: u32 = 1;

/// `struct io_uring_sqe`, as far as it is used.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Submission {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}

/// `struct io_uring_cqe`
#[repr(C)]
#[derive(Clone, Copy)]
struct Completion {
    user_data: u64,
    res: i32,
    flags: u32,
}

/// `struct io_sqring_offsets` and `struct io_cqring_offsets` have the same size; the names are the first one's.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Offsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    /// Flags of the submission ring, overflows of the completion ring.
    fifth: u32,
    /// Dropped requests of the submission ring, entries of the completion ring.
    sixth: u32,
    /// The array of the submission ring.
    seventh: u32,
    reserved: u32,
    user_addr: u64,
}

/// `struct io_uring_params`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    sq_off: Offsets,
    cq_off: Offsets,
}

pub(super) struct Ring {
    fd: OwnedFd,
    params: Params,
    sq: Mapping,
    cq: Mapping,
    sqes: Mapping,
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let mut params = Params::default();
        // SAFETY: `params` is a whole io_uring_params, readable and writable for the call.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &raw mut params) };
        let fd = c_int::try_from(check(fd)?).map_err(io::Error::other)?;
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let sq_len = params.sq_off.seventh + params.sq_entries * 4;
        let cq_len = params.cq_off.sixth + params.cq_entries * size_of::<Completion>() as u32;
        Ok(Self {
            sq: Mapping::of(&fd, OFFSET_SQ, sq_len as usize)?,
            cq: Mapping::of(&fd, OFFSET_CQ, cq_len as usize)?,
            sqes: Mapping::of(
                &fd,
                OFFSET_SQES,
                params.sq_entries as usize * size_of::<Submission>(),
            )?,
            fd,
            params,
        })
    }

    pub(super) fn connect(&mut self, socket: &Socket, to: &SockAddr) -> io::Result<i32> {
        self.run(Submission {
            opcode: OP_CONNECT,
            fd: socket.as_raw_fd(),
            addr: to.as_ptr() as u64,
            off: to.len().into(),
            ..Submission::default()
        })
    }

    pub(super) fn accept(&mut self, listener: &Socket) -> io::Result<(Socket, io::Result<SockAddr>)> {
        let mut storage = SockAddrStorage::zeroed();
        let mut len: libc::socklen_t = storage.size_of();
        let fd = self.run(Submission {
            opcode: OP_ACCEPT,
            fd: listener.as_raw_fd(),
            addr: (&raw mut storage) as u64,
            off: (&raw mut len) as u64,
            ..Submission::default()
        })?;
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: the kernel has written an address of this length, and zeroes are behind it.
        Ok((socket, Ok(unsafe { SockAddr::new(storage, len) })))
    }

    pub(super) fn send(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<i32> {
        self.run(Submission {
            opcode: OP_SEND,
            fd: socket.as_raw_fd(),
            addr: bytes.as_ptr() as u64,
            len: bytes.len() as u32,
            ..Submission::default()
        })
    }

    pub(super) fn recv(&mut self, socket: &Socket, room: &mut [u8]) -> io::Result<i32> {
        self.run(Submission {
            opcode: OP_RECV,
            fd: socket.as_raw_fd(),
            addr: room.as_mut_ptr() as u64,
            len: room.len() as u32,
            ..Submission::default()
        })
    }

    /// Submits one request and waits until it is done, so that what it points to outlives it.
    fn run(&mut self, request: Submission) -> io::Result<i32> {
        let Params { sq_off, cq_off, .. } = self.params;
        let tail = self.sq.word(sq_off.tail);
        let place = tail.load(Ordering::Relaxed);
        let index = place & self.sq.word(sq_off.ring_mask).load(Ordering::Relaxed);
        // SAFETY: `index` is below the number of entries, for which `sqes` is mapped; the kernel reads them only
        // between the store of the tail and the completion.
        unsafe { self.sqes.at::<Submission>(0).add(index as usize).write(request) };
        self.sq
            .word(sq_off.seventh + index * 4)
            .store(index, Ordering::Relaxed);
        tail.store(place.wrapping_add(1), Ordering::Release);
        loop {
            // SAFETY: no memory is passed; what the request points to is borrowed by the caller until we return.
            let entered = unsafe {
                libc::syscall(
                    libc::SYS_io_uring_enter,
                    self.fd.as_raw_fd(),
                    1_u32,
                    1_u32,
                    ENTER_GETEVENTS,
                    ptr::null::<c_void>(),
                    0_usize,
                )
            };
            match check(entered) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let head = self.cq.word(cq_off.head);
        let place = head.load(Ordering::Relaxed);
        let index = place & self.cq.word(cq_off.ring_mask).load(Ordering::Relaxed);
        // SAFETY: `index` is below the number of completions, for which `cq` is mapped; the kernel has written this
        // one, because it has returned from waiting for it.
        let done = unsafe { self.cq.at::<Completion>(cq_off.sixth).add(index as usize).read() };
        head.store(place.wrapping_add(1), Ordering::Release);
        if done.res < 0 {
            return Err(io::Error::from_raw_os_error(-done.res));
        }
        Ok(done.res)
    }
}

/// Memory shared with the kernel. Unmapped on drop.
struct Mapping {
    start: *mut c_void,
    len: usize,
}

impl Mapping {
    fn of(fd: &OwnedFd, offset: i64, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping of a ring; no memory of ours is touched.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start, len })
    }

    fn at<T>(&self, offset: u32) -> *mut T {
        self.start.wrapping_byte_add(offset as usize).cast()
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        assert!(offset as usize + 4 <= self.len, "a word of the ring");
        // SAFETY: mapped for as long as `self` lives, as just checked; the kernel aligns its words, and both sides
        // access them atomically.
        unsafe { &*self.at::<AtomicU32>(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length, and no reference outlives `self`.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
