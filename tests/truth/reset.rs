//! Abrupt ends, in both directions, with data on its way.

use std::net::Shutdown;
use std::time::Duration;

use crate::watch::Events;
use anyhow::Result;
use nix::libc;
use socket2::Socket;

use crate::case::{ALL, Case, case};
use crate::close::{accepted, dialled};
use crate::connect::pending;
use crate::half::Half;
use crate::{stream, sys, watch};

pub(crate) const CASES: &[Case] = &[
    case(
        "reset/by-the-client",
        ALL,
        |h| dialled(h, abort),
        |h| accepted(h, aborted),
    ),
    case(
        "reset/by-the-server",
        ALL,
        |h| dialled(h, aborted),
        |h| accepted(h, abort),
    ),
    case(
        "reset/by-the-client-after-data",
        ALL,
        |h| dialled(h, abort_after_data),
        |h| accepted(h, aborted_after_data),
    ),
    case(
        "reset/by-the-server-after-data",
        ALL,
        |h| dialled(h, aborted_after_data),
        |h| accepted(h, abort_after_data),
    ),
    case(
        "reset/unread-data-at-the-client",
        ALL,
        |h| dialled(h, ignore),
        |h| accepted(h, ignored),
    ),
    case(
        "reset/unread-data-at-the-server",
        ALL,
        |h| dialled(h, ignored),
        |h| accepted(h, ignore),
    ),
    case(
        "reset/answer-before-unread-data-at-the-server",
        ALL,
        |h| dialled(h, answered),
        |h| accepted(h, answer),
    ),
    case(
        "reset/answer-before-unread-data-at-the-client",
        ALL,
        |h| dialled(h, answer),
        |h| accepted(h, answered),
    ),
    case(
        "reset/by-the-reader-in-flight",
        ALL,
        |h| dialled(h, write_on),
        |h| accepted(h, tire),
    ),
    case(
        "reset/by-the-reader-in-flight-to-the-client",
        ALL,
        |h| dialled(h, tire),
        |h| accepted(h, write_on),
    ),
    case(
        "reset/by-the-writer-in-flight",
        ALL,
        |h| dialled(h, tear),
        |h| accepted(h, torn),
    ),
    case(
        "reset/by-the-writer-in-flight-to-the-client",
        ALL,
        |h| dialled(h, torn),
        |h| accepted(h, tear),
    ),
    case(
        "reset/after-the-client-finished",
        ALL,
        |h| dialled(h, finish_then_abort),
        |h| accepted(h, finished_then_aborted),
    ),
    case(
        "reset/after-the-server-finished",
        ALL,
        |h| dialled(h, finished_then_aborted),
        |h| accepted(h, finish_then_abort),
    ),
    case(
        "reset/of-a-half-closed-client",
        ALL,
        |h| dialled(h, half_closed),
        |h| accepted(h, abort_half_closed),
    ),
    case(
        "reset/of-a-half-closed-server",
        ALL,
        |h| dialled(h, abort_half_closed),
        |h| accepted(h, half_closed),
    ),
];

fn with_a_reset(socket: Socket) -> Result<()> {
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(())
}

fn abort(half: &mut Half, socket: Socket) -> Result<()> {
    half.peer.hear("ready")?;
    with_a_reset(socket)
}

fn aborted(half: &mut Half, socket: Socket) -> Result<()> {
    half.peer.tell("ready")?;
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.result("read-again", stream::recv_text(&socket));
    half.facts.result("send", socket.send(b"x"));
    half.facts.address("getpeername", socket.peer_addr());
    Ok(())
}

fn abort_after_data(half: &mut Half, socket: Socket) -> Result<()> {
    half.facts.result("send", socket.send(b"last words"));
    half.peer.hear("arrived")?;
    with_a_reset(socket)
}

/// What arrived before the reset can still be read after it.
fn aborted_after_data(half: &mut Half, socket: Socket) -> Result<()> {
    watch::until(&socket, Events::IN, half.patience)?;
    half.peer.tell("arrived")?;
    let ready = watch::until(&socket, Events::RESET, half.patience)?;
    half.facts.say("poll", watch::words(ready));
    half.facts.result("FIONREAD", sys::count(&socket, libc::FIONREAD));
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.result("read-again", stream::recv_text(&socket));
    half.facts.result("send", socket.send(b"x"));
    Ok(())
}

/// close() with unread data is a reset.
fn ignore(half: &mut Half, socket: Socket) -> Result<()> {
    let ready = watch::until(&socket, Events::IN, half.patience)?;
    half.facts.say("poll", watch::words(ready));
    drop(socket);
    half.peer.tell("closed")
}

fn ignored(half: &mut Half, socket: Socket) -> Result<()> {
    half.facts.result("send", socket.send(b"hello"));
    half.peer.hear("closed")?;
    let ready = watch::until(&socket, Events::RESET, half.patience)?;
    half.facts.say("poll", watch::words(ready));
    half.facts.result("SO_ERROR", pending(&socket));
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.result("send-after", socket.send(b"x"));
    Ok(())
}

/// As an HTTP server that answers 413 and closes without reading the rest.
fn answer(half: &mut Half, socket: Socket) -> Result<()> {
    watch::until(&socket, Events::IN, half.patience)?;
    half.facts.result("send", socket.send(b"too large"));
    half.peer.hear("heard")?;
    Ok(())
}

fn answered(half: &mut Half, socket: Socket) -> Result<()> {
    half.facts.result("send", socket.send(&stream::pattern(0, 4096)));
    watch::until(&socket, Events::IN, half.patience)?;
    half.peer.tell("heard")?;
    let ready = watch::until(&socket, Events::RESET, half.patience)?;
    half.facts.say("poll", watch::words(ready));
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.result("read-again", stream::recv_text(&socket));
    Ok(())
}

/// Writes until it is stopped.
fn write_on(half: &mut Half, socket: Socket) -> Result<()> {
    let (sent, end) = stream::send_pattern(&socket, 1 << 30, 64 << 10);
    half.facts.say("sent-all", sent == 1 << 30);
    half.facts.done("send", end);
    half.facts.result("send-again", socket.send(b"x"));
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn tire(half: &mut Half, socket: Socket) -> Result<()> {
    let bytes = stream::take(&socket, 300_000);
    half.facts
        .result("read-intact", bytes.map(|bytes| stream::is_pattern(0, &bytes)));
    with_a_reset(socket)
}

/// Gives up in the midst of what it writes.
fn tear(half: &mut Half, socket: Socket) -> Result<()> {
    let (sent, end) = stream::send_pattern(&socket, 1_000_000, 64 << 10);
    half.facts.say("sent", sent);
    half.facts.done("send", end);
    half.peer.hear("reading")?;
    with_a_reset(socket)
}

fn torn(half: &mut Half, socket: Socket) -> Result<()> {
    let bytes = stream::take(&socket, 100_000)?;
    half.facts.say("read-intact", stream::is_pattern(0, &bytes));
    half.peer.tell("reading")?;
    let mut rest = vec![0; 4 << 20];
    let (mut offset, mut intact) = (100_000_u64, true);
    let end = loop {
        match stream::recv(&socket, &mut rest) {
            Ok(0) => break "EOF".into(),
            Ok(n) => {
                intact &= stream::is_pattern(offset, &rest[..n]);
                offset += n as u64;
            }
            Err(error) => break crate::facts::errno(&error),
        }
    };
    half.facts.say("rest-intact", intact);
    half.facts.say("end", end);
    Ok(())
}

fn finish_then_abort(half: &mut Half, socket: Socket) -> Result<()> {
    socket.shutdown(Shutdown::Write)?;
    half.peer.hear("read")?;
    with_a_reset(socket)
}

/// A reset after the end of the stream.
fn finished_then_aborted(half: &mut Half, socket: Socket) -> Result<()> {
    half.facts.result("read", stream::recv_text(&socket));
    half.peer.tell("read")?;
    let ready = watch::until(&socket, Events::RESET, half.patience)?;
    half.facts.say("poll", watch::words(ready));
    half.facts.result("SO_ERROR", pending(&socket));
    half.facts.result("send", socket.send(b"x"));
    half.facts.result("read-again", stream::recv_text(&socket));
    Ok(())
}

/// Has finished, and waits for an answer that does not come.
fn half_closed(half: &mut Half, socket: Socket) -> Result<()> {
    socket.shutdown(Shutdown::Write)?;
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.result("read-again", stream::recv_text(&socket));
    Ok(())
}

fn abort_half_closed(half: &mut Half, socket: Socket) -> Result<()> {
    half.facts.result("read", stream::recv_text(&socket));
    with_a_reset(socket)
}
