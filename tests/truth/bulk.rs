//! Bytes: few, many, in tiny and in huge writes, and to one who does not read.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::watch::Events;
use anyhow::Result;
use socket2::Socket;

use crate::case::{ALL, Case, case};
use crate::close::{accepted, dialled};
use crate::half::Half;
use crate::{stream, watch};

pub(crate) const CASES: &[Case] = &[
    case("bulk/sizes", ALL, sizes_client, sizes_server),
    case(
        "bulk/tiny-writes",
        ALL,
        |h| dialled(h, tiny),
        |h| accepted(h, echo),
    ),
    case(
        "bulk/one-huge-write",
        ALL,
        |h| dialled(h, huge),
        |h| accepted(h, echo),
    ),
    case(
        "bulk/both-ways-at-once",
        ALL,
        |h| dialled(h, both_ways),
        |h| accepted(h, both_ways),
    ),
    case("bulk/ping-pong", ALL, |h| dialled(h, ping), |h| accepted(h, pong)),
    case(
        "bulk/server-does-not-read",
        ALL,
        |h| dialled(h, press),
        |h| accepted(h, stall),
    ),
    case(
        "bulk/client-does-not-read",
        ALL,
        |h| dialled(h, stall),
        |h| accepted(h, press),
    ),
];

/// Around the sizes of TLS records, HTTP/2 frames and windows.
const SIZES: &[usize] = &[
    1, 2, 1447, 1448, 1449, 16_383, 16_384, 16_385, 32_768, 65_535, 65_536, 65_537, 131_072, 1_000_001,
];

/// A connection for each size: one write, the end, and the same back.
fn sizes_client(half: &mut Half) -> Result<()> {
    for size in SIZES {
        let socket = half.dial()?;
        (&socket).write_all(&stream::pattern(0, *size))?;
        socket.shutdown(Shutdown::Write)?;
        stream::drain(&socket).report(&mut half.facts, &format!("back-{size}"));
    }
    Ok(())
}

fn sizes_server(half: &mut Half) -> Result<()> {
    for size in SIZES {
        let socket = half.accept()?;
        let received = stream::drain(&socket);
        received.report(&mut half.facts, &format!("read-{size}"));
        (&socket).write_all(&stream::pattern(0, received.bytes as usize))?;
    }
    Ok(())
}

/// Reads to the end, then gives the same back in one write.
fn echo(half: &mut Half, socket: Socket) -> Result<()> {
    let received = stream::drain(&socket);
    received.report(&mut half.facts, "read");
    (&socket).write_all(&stream::pattern(0, received.bytes as usize))?;
    Ok(())
}

fn send_and_read(half: &mut Half, socket: &Socket, total: u64, chunk: usize) -> Result<()> {
    let (sent, end) = stream::send_pattern(socket, total, chunk);
    half.facts.say("sent", sent);
    half.facts.done("send", end);
    socket.shutdown(Shutdown::Write)?;
    stream::drain(socket).report(&mut half.facts, "read");
    Ok(())
}

fn tiny(half: &mut Half, socket: Socket) -> Result<()> {
    socket.set_tcp_nodelay(true)?;
    send_and_read(half, &socket, 3000, 1)
}

fn huge(half: &mut Half, socket: Socket) -> Result<()> {
    send_and_read(half, &socket, 8 << 20, 8 << 20)
}

fn both_ways(half: &mut Half, socket: Socket) -> Result<()> {
    let writer = socket.try_clone()?;
    let sending = std::thread::spawn(move || {
        let sent = stream::send_pattern(&writer, 4 << 20, 50_000);
        let _ = writer.shutdown(Shutdown::Write);
        sent
    });
    stream::drain(&socket).report(&mut half.facts, "read");
    if let Ok((sent, end)) = sending.join() {
        half.facts.say("sent", sent);
        half.facts.done("send", end);
    }
    Ok(())
}

const ROUNDS: usize = 200;

fn ping(half: &mut Half, socket: Socket) -> Result<()> {
    let mut right = 0;
    for round in 0..ROUNDS {
        (&socket).write_all(&stream::pattern(0, round + 1))?;
        right += usize::from(stream::is_pattern(0, &stream::take(&socket, round + 1)?));
    }
    half.facts.say("right", right);
    Ok(())
}

fn pong(_: &mut Half, socket: Socket) -> Result<()> {
    for round in 0..ROUNDS {
        let message = stream::take(&socket, round + 1)?;
        (&socket).write_all(&message)?;
    }
    Ok(())
}

/// More than any buffers on the way may hold.
const PRESSURE: u64 = 64 << 20;
/// Without progress for so long, a writer counts as stopped.
const STOPPED: Duration = Duration::from_secs(1);

fn press(half: &mut Half, socket: Socket) -> Result<()> {
    socket.set_nonblocking(true)?;
    let mut taken = 0_u64;
    let stopped = loop {
        if taken >= PRESSURE {
            break false;
        }
        match (&socket).write(&stream::pattern(taken, 64 << 10)) {
            Ok(n) => taken += n as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if watch::wait(&socket, Events::OUT, STOPPED)?.is_empty() {
                    break true;
                }
            }
            Err(error) => return Err(error.into()),
        }
    };
    half.facts.say("writer-stopped", stopped);
    half.peer.tell_number("pressed", taken)?;
    socket.set_nonblocking(false)?;
    half.peer.hear("read")?;
    let ready = watch::until(&socket, Events::OUT, half.patience)?;
    half.facts.say("poll", watch::words(ready));
    half.facts
        .result("send", socket.send(&stream::pattern(taken, 10)));
    Ok(())
}

fn stall(half: &mut Half, socket: Socket) -> Result<()> {
    let taken = half.peer.hear("pressed")? as usize;
    let mut offset = 0;
    let mut intact = true;
    while offset < taken {
        let part = stream::take(&socket, (taken - offset).min(1 << 20))?;
        intact &= stream::is_pattern(offset as u64, &part);
        offset += part.len();
    }
    half.facts.say("all-intact", intact);
    half.peer.tell("read")?;
    let rest = stream::take(&socket, 10);
    half.facts
        .result("rest", rest.map(|rest| stream::is_pattern(taken as u64, &rest)));
    Ok(())
}
