//! One netlink socket: a question, and the kernel's answers to it. The kernel answers before it returns from the
//! question, or piece by piece as the answers are read, so that nothing here waits for anybody.
//!
//! Does not listen for changes; `watch.rs` does.

use std::fmt::Debug;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

/// The kernel fills no message of a dump beyond 32 KiB.
const BUFFER: usize = 32 * 1024;
/// A dump during which something changed may lack entries, and is asked for again. On a host that changes all the time
/// the last one has to do: the next change is told anyway.
const DUMPS: u32 = 5;

pub(super) struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open(protocol: SockProtocol) -> io::Result<Self> {
        Ok(Self {
            socket: open(protocol, SockFlag::empty(), 0)?,
            buffer: vec![0; BUFFER],
            sequence: 0,
        })
    }

    /// Everything of a kind.
    pub(super) fn dump<M>(&mut self, request: &M) -> io::Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Clone + Debug,
    {
        let mut dumps = 1;
        loop {
            self.send(request, NLM_F_DUMP)?;
            let (answers, interrupted) = self.receive(true)?;
            if !interrupted || dumps == DUMPS {
                return Ok(answers);
            }
            dumps += 1;
        }
    }

    /// One answer, or the errno that the kernel has for it.
    pub(super) fn ask<M>(&mut self, request: &M) -> io::Result<M>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Clone + Debug,
    {
        self.send(request, 0)?;
        let (answers, _) = self.receive(false)?;
        answers.into_iter().next().ok_or_else(|| malformed("no answer"))
    }

    #[cfg(test)]
    pub(super) fn questions(&self) -> u32 {
        self.sequence
    }

    /// Has the kernel do something, or learns the errno that it has for it.
    pub(super) fn order<M, A>(&mut self, request: &M) -> io::Result<()>
    where
        M: NetlinkSerializable + Clone,
        A: NetlinkDeserializable + Debug,
    {
        self.send(request, NLM_F_ACK)?;
        self.receive::<A>(false).map(drop)
    }

    fn send<M: NetlinkSerializable + Clone>(&mut self, request: &M, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.clone()));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.socket.as_raw_fd(), &bytes, &kernel, MsgFlags::empty())?;
        Ok(())
    }

    /// The answers to the last question, and whether something changed meanwhile. `many`: up to the message that ends
    /// them.
    fn receive<M: NetlinkDeserializable + Debug>(&mut self, many: bool) -> io::Result<(Vec<M>, bool)> {
        let mut answers = Answers::to(self.sequence, many);
        loop {
            let len = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC)?;
            let datagram = self
                .buffer
                .get(..len)
                .ok_or_else(|| malformed("an answer that is too long"))?;
            if answers.take(datagram)? {
                return Ok((answers.found, answers.interrupted));
            }
        }
    }
}

/// The answers to one question, as they come.
pub(super) struct Answers<M> {
    sequence: u32,
    many: bool,
    pub(super) found: Vec<M>,
    interrupted: bool,
}

impl<M: NetlinkDeserializable + Debug> Answers<M> {
    pub(super) fn to(sequence: u32, many: bool) -> Self {
        Self {
            sequence,
            many,
            found: Vec::new(),
            interrupted: false,
        }
    }

    /// Reads one datagram, and says whether the answers end with it.
    pub(super) fn take(&mut self, datagram: &[u8]) -> io::Result<bool> {
        let mut rest = datagram;
        while !rest.is_empty() {
            // The parser quotes what it did not understand, and terminals obey control characters.
            let unread = |error: DecodeError| io::Error::other(error.to_string().escape_debug().to_string());
            let message = NetlinkMessage::<M>::deserialize(rest).map_err(unread)?;
            // Messages begin at multiples of 4.
            let next = (message.header.length as usize)
                .next_multiple_of(4)
                .min(rest.len());
            rest = &rest[next.max(1)..];
            // What is left of a question whose answers nobody has read to their end.
            if message.header.sequence_number != self.sequence {
                continue;
            }
            self.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => self.found.push(answer),
                NetlinkPayload::Error(error) => match error.code {
                    // A code is a negative errno; i32::MIN, which no kernel sends, has no opposite.
                    Some(code) => return Err(io::Error::from_raw_os_error(code.get().wrapping_neg())),
                    None => return Ok(true),
                },
                NetlinkPayload::Done(_) => return Ok(true),
                _ => {}
            }
            if !self.many && !self.found.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A socket that hears of the groups, given as bits.
pub(super) fn open(protocol: SockProtocol, flags: SockFlag, groups: u32) -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags | SockFlag::SOCK_CLOEXEC,
        protocol,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
