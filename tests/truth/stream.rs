//! Bytes that tell whether they are the right ones at the right place. Opens and closes nothing.

use std::io::{self, Read, Write};
use std::sync::LazyLock;

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

/// A prime: no size of a buffer or a frame divides it, so that a piece at the wrong place shows.
const PERIOD: usize = 1_000_003;

/// The bytes of every stream, again and again. Made once: debug builds are slow at it.
fn period() -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut state = 1_u32;
        let mut next = || {
            // Numerical Recipes' generator; its high bits are good enough to tell places apart.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..PERIOD).map(|_| next()).collect()
    });
    &BYTES
}

/// The bytes from this place on, in pieces that are `len` long together.
fn pieces(offset: u64, mut len: usize) -> impl Iterator<Item = &'static [u8]> {
    let mut at = (offset % PERIOD as u64) as usize;
    std::iter::from_fn(move || {
        let piece = &period()[at..PERIOD.min(at + len)];
        len -= piece.len();
        at = 0;
        (!piece.is_empty()).then_some(piece)
    })
}

pub(crate) fn pattern(offset: u64, len: usize) -> Vec<u8> {
    pieces(offset, len).collect::<Vec<_>>().concat()
}

pub(crate) fn is_pattern(offset: u64, mut bytes: &[u8]) -> bool {
    pieces(offset, bytes.len()).all(|piece| {
        let (head, rest) = bytes.split_at(piece.len());
        bytes = rest;
        head == piece
    })
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
