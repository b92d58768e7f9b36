//! The control path: what a process writes that may not call bpf(2). Each request is one setsockopt(2), which `or_setsockopt`
//! answers with an errno; a value that is asked for is read with getsockopt(2).
//!
//! The program believes whoever has the secret of the pod, whatever uid it has. So the secret is in no message and no log, and
//! is overwritten where this process has had it; the kernel frees its copies as they are. Decides nothing, and keeps nothing.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use nix::sys::memfd::{MFdFlags, memfd_create};
use sidecar_ebpf::abi::control::{self, Answer, Held, LEVEL, ProbeAttempt, Word, WordChange, operation};
use sidecar_ebpf::abi::{self, StageChange, Tuple};
use sidecar_ebpf::addr::Port;
use socket2::{Domain, Socket, Type};
use zeroize::Zeroize;

use super::super::ip::kernel_ip;
use super::super::{Error, sys};

/// What the installer gives to the proxy of one pod, and to nobody else.
#[repr(transparent)]
pub struct Secret(control::Secret);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control(Arc<Asking>);

#[derive(Debug)]
struct Asking {
    secret: Secret,
    /// On which everything is asked for that concerns no other socket.
    socket: Socket,
    /// The socket has room for one answer.
    answer: Mutex<()>,
}

/// A request was refused, or nobody was there to do it. Becomes the error of whoever has asked.
#[derive(Debug)]
pub(super) struct Failed {
    operation: &'static str,
    source: io::Error,
}

/// Its number, and what is told of it when it fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation(i32, &'static str);

impl Operation {
    pub(super) const POLICY_SET: Self = Self(operation::POLICY_SET, "write the interception policy");
    pub(super) const POLICY_REMOVE: Self = Self(operation::POLICY_REMOVE, "remove an interception policy");
    pub(super) const POLICY_GET: Self = Self(operation::POLICY_GET, "read the interception policy");
    pub(super) const ROUTE_SET: Self = Self(operation::ROUTE_SET, "write a route");
    pub(super) const ROUTE_REMOVE: Self = Self(operation::ROUTE_REMOVE, "remove a route");
    pub(super) const ROUTE_GET: Self = Self(operation::ROUTE_GET, "read a route");
    const PROVE: Self = Self(operation::PROVE, "take the secret");
    const MARK: Self = Self(operation::MARK, "mark a socket of the proxy");
    const STAGE: Self = Self(operation::STAGE, "approve a held connection");
    const IS_HELD: Self = Self(operation::IS_HELD, "say whether a connection is held");
    const WORD: Self = Self(operation::WORD, "change the settings");
    const IS_PROBE: Self = Self(
        operation::IS_PROBE,
        "say whether a connection is a probe of the node",
    );
    const HAS_APP_SOCKET: Self = Self(operation::HAS_APP_SOCKET, "say which sockets it counts");
}

/// As the program reads it: nothing between the two, and nothing behind.
#[repr(C)]
struct Request<T> {
    secret: Secret,
    body: T,
}

impl Secret {
    /// Random bytes. All zeros are no secret: they let nobody in.
    pub fn new(mut bytes: [u8; 16]) -> Self {
        let secret = Self(bytemuck::cast(bytes));
        bytes.zeroize();
        secret
    }

    pub(in super::super) fn of_words(words: control::Secret) -> Self {
        Self(words)
    }

    /// For a pod that has none yet.
    pub fn fresh() -> io::Result<Self> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let secret = Self::new(bytes);
        bytes.zeroize();
        Ok(secret)
    }

    /// In a file in memory, for handing it over by its descriptor: so it stands in no message.
    pub fn file(&self) -> io::Result<OwnedFd> {
        let file = File::from(memfd_create("secret", MFdFlags::MFD_CLOEXEC)?);
        let mut bytes: [u8; 16] = bytemuck::cast(self.0);
        let written = file.write_all_at(&bytes, 0);
        bytes.zeroize();
        written.map(|()| file.into())
    }

    /// Of such a file.
    pub fn of_file(file: OwnedFd) -> io::Result<Self> {
        let mut bytes = [0; 16];
        File::from(file).read_exact_at(&mut bytes, 0)?;
        let secret = Self::new(bytes);
        bytes.zeroize();
        Ok(secret)
    }

    /// For the installer, who writes it into the kernel.
    pub(in super::super) fn words(&self) -> &control::Secret {
        &self.0
    }

    fn copy(&self) -> Self {
        Self(self.0)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.words.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Control {
    /// By a socket of the calling thread's, whose process is in the pod's cgroup: that decides which programs are asked. Fails
    /// where they do not take the secret, or have no way to say no (before Linux 5.18).
    pub fn open(secret: Secret) -> Result<Self, Error> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(|source| Error::Host {
            what: "a socket for the control path",
            source,
        })?;
        let control = Self(Arc::new(Asking {
            secret,
            socket,
            answer: Mutex::new(()),
        }));
        control.must(Operation::PROVE, ())?;
        // No socket has this cookie. Where the kernel has no other errno than EPERM, this fails.
        control.has_app_socket(0)?;
        Ok(control)
    }

    /// Marks a socket of this process.
    pub(super) fn mark(&self, socket: BorrowedFd<'_>, mark: &abi::Bypass) -> Result<(), Failed> {
        self.request(socket, Operation::MARK, *mark)
    }

    /// Whether the connection is in the wanted stage now.
    pub(super) fn stage(&self, change: StageChange) -> Result<bool, Failed> {
        self.ask(Operation::STAGE, change)
    }

    pub(super) fn is_held(&self, tuple: Tuple, sequence: u32) -> Result<bool, Failed> {
        let held = Held {
            tuple,
            sequence,
            reserved: 0,
        };
        self.ask(Operation::IS_HELD, held)
    }

    /// For the proxy of this epoch. False: that of another one has the pod.
    pub(super) fn change(&self, epoch: u32, word: Word, value: u32) -> Result<bool, Failed> {
        let change = WordChange { epoch, word, value };
        match self.must(Operation::WORD, change) {
            Err(failed) if failed.is(control::OTHER_EPOCH) => Ok(false),
            answered => answered.map(|()| true),
        }
    }

    /// Whether the programs count this socket, which listens.
    pub(super) fn has_app_socket(&self, cookie: u64) -> Result<bool, Failed> {
        self.ask(Operation::HAS_APP_SOCKET, cookie)
    }

    /// Whether who dials the port is the pod's host, which asks there whether a container is well. Programs of an earlier
    /// version do not know this question, and say of nothing that it is one.
    pub(super) fn is_probe(&self, from: IpAddr, port: u16) -> Result<bool, Failed> {
        let attempt = ProbeAttempt {
            from: kernel_ip(from),
            port: Port::new(port),
            reserved: 0,
        };
        match self.ask(Operation::IS_PROBE, attempt) {
            Err(failed) if failed.is(control::UNKNOWN) => Ok(false),
            answered => answered,
        }
    }

    /// What an operation finds that leaves its answer on the socket.
    pub(super) fn get<K: Pod, V: Pod>(&self, operation: Operation, key: &K) -> Result<Option<V>, Failed> {
        const { assert!(size_of::<V>() <= Answer::BYTES, "no answer is longer") };
        let _turn = self.0.answer.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.ask(operation, *key)? {
            return Ok(None);
        }
        let answer: io::Result<Answer> = sys::option(self.0.socket.as_fd(), LEVEL, operation::ANSWER);
        let answer = answer.map_err(|source| Failed {
            operation: operation.1,
            source,
        })?;
        let bytes = &bytemuck::bytes_of(&answer)[..size_of::<V>()];
        Ok(Some(bytemuck::pod_read_unaligned(bytes)))
    }

    /// False: what was asked for is not so.
    pub(super) fn ask<T: Copy>(&self, operation: Operation, body: T) -> Result<bool, Failed> {
        match self.must(operation, body) {
            Err(failed) if failed.is(control::NO) => Ok(false),
            answered => answered.map(|()| true),
        }
    }

    pub(super) fn must<T: Copy>(&self, operation: Operation, body: T) -> Result<(), Failed> {
        self.request(self.0.socket.as_fd(), operation, body)
    }

    fn request<T: Copy>(
        &self,
        socket: BorrowedFd<'_>,
        Operation(number, operation): Operation,
        body: T,
    ) -> Result<(), Failed> {
        const {
            assert!(
                size_of::<Request<T>>() == size_of::<Secret>() + size_of::<T>(),
                "the body begins behind the secret"
            );
        };
        let secret = self.0.secret.copy();
        let request = Request { secret, body };
        sys::set_option(socket, LEVEL, number, &request).map_err(|source| Failed { operation, source })
    }
}

impl Failed {
    fn is(&self, errno: u32) -> bool {
        self.source.raw_os_error().map(i32::cast_unsigned) == Some(errno)
    }
}

impl From<Failed> for Error {
    fn from(Failed { operation, source }: Failed) -> Self {
        Self::Control { operation, source }
    }
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        failed.source
    }
}
