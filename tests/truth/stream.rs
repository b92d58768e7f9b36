//! Bytes that tell whether they are the right ones at the right place. Opens and closes nothing.

use std::io::{self, Read, Write};

use socket2::Socket;

use crate::facts::{Facts, errno};

/// What was received, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) bytes: u64,
    /// Every byte was the one that belongs there.
    pub(crate) intact: bool,
    /// `EOF` or an errno.
    pub(crate) end: String,
}

/// The byte at this place of every stream: no period that a buffer size could hide.
fn at(offset: u64) -> u8 {
    (offset ^ (offset >> 8) ^ (offset >> 16).wrapping_mul(31)) as u8
}

pub(crate) fn pattern(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(at).collect()
}

pub(crate) fn is_pattern(offset: u64, bytes: &[u8]) -> bool {
    bytes
        .iter()
        .zip(offset..)
        .all(|(byte, offset)| *byte == at(offset))
}

/// Sends `total` bytes in writes of `chunk`, and gives how many the kernel took before it failed.
pub(crate) fn send_pattern(mut socket: &Socket, total: u64, chunk: usize) -> (u64, io::Result<()>) {
    let mut sent = 0;
    while sent < total {
        let len = chunk.min((total - sent) as usize);
        match socket.write(&pattern(sent, len)) {
            Ok(n) => sent += n as u64,
            Err(error) => return (sent, Err(error)),
        }
    }
    (sent, Ok(()))
}

/// Reads to the end, whatever that is.
pub(crate) fn drain(socket: &Socket) -> Received {
    let mut buffer = vec![0; 256 << 10];
    let mut received = Received {
        intact: true,
        ..Received::default()
    };
    loop {
        match recv(socket, &mut buffer) {
            Ok(0) => {
                received.end = "EOF".into();
                return received;
            }
            Ok(n) => {
                received.intact &= is_pattern(received.bytes, &buffer[..n]);
                received.bytes += n as u64;
            }
            Err(error) => {
                received.end = errno(&error);
                return received;
            }
        }
    }
}

/// Reads exactly so much, unless it ends before.
pub(crate) fn take(mut socket: &Socket, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; len];
    socket.read_exact(&mut buffer)?;
    Ok(buffer)
}

/// One read.
pub(crate) fn recv(mut socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    socket.read(buffer)
}

/// One read, as text.
pub(crate) fn recv_text(socket: &Socket) -> io::Result<String> {
    let mut buffer = [0; 4096];
    recv(socket, &mut buffer).map(|n| match n {
        0 => "EOF".into(),
        n => String::from_utf8_lossy(&buffer[..n]).into_owned(),
    })
}

impl Received {
    pub(crate) fn report(&self, facts: &mut Facts, key: &str) {
        let Self { bytes, intact, end } = self;
        facts.say(
            key,
            format_args!("{bytes} {} {end}", if *intact { "intact" } else { "corrupt" }),
        );
    }
}
