//! Orderly ends: each side in turn, both, and what still passes afterwards.

use std::net::Shutdown;

use crate::watch::Events;
use anyhow::Result;
use socket2::Socket;

use crate::case::{ALL, Case, case};
use crate::half::Half;
use crate::{stream, watch};

pub(crate) const CASES: &[Case] = &[
    case(
        "close/client-finishes-first",
        ALL,
        |h| dialled(h, finish_first),
        |h| accepted(h, finish_last),
    ),
    case(
        "close/server-finishes-first",
        ALL,
        |h| dialled(h, finish_last),
        |h| accepted(h, finish_first),
    ),
    case(
        "close/both-at-once",
        ALL,
        |h| dialled(h, at_once),
        |h| accepted(h, at_once),
    ),
    case(
        "close/client-finishes-without-a-word",
        ALL,
        |h| dialled(h, silent),
        |h| accepted(h, silent_last),
    ),
    case(
        "close/client-closes",
        ALL,
        |h| dialled(h, leave),
        |h| accepted(h, left),
    ),
    case(
        "close/server-closes",
        ALL,
        |h| dialled(h, left),
        |h| accepted(h, leave),
    ),
    case(
        "close/client-stops-reading",
        ALL,
        |h| dialled(h, stop_reading),
        |h| accepted(h, unread),
    ),
    case(
        "close/server-stops-reading",
        ALL,
        |h| dialled(h, unread),
        |h| accepted(h, stop_reading),
    ),
    case(
        "close/last-words-of-the-server",
        ALL,
        |h| dialled(h, hear_all),
        |h| accepted(h, last_words),
    ),
    case(
        "close/last-words-of-the-client",
        ALL,
        |h| dialled(h, last_words),
        |h| accepted(h, hear_all),
    ),
    case(
        "close/with-linger",
        ALL,
        |h| dialled(h, lingering),
        |h| accepted(h, hear_all),
    ),
    case(
        "close/duplicate-descriptor",
        ALL,
        |h| dialled(h, duplicate),
        |h| accepted(h, hear_all),
    ),
];

/// More than what fits into one segment or one frame, less than what socket buffers hold.
const WORDS: u64 = 100_000;

pub(crate) fn dialled(half: &mut Half, play: fn(&mut Half, Socket) -> Result<()>) -> Result<()> {
    let socket = half.dial()?;
    play(half, socket)
}

pub(crate) fn accepted(half: &mut Half, play: fn(&mut Half, Socket) -> Result<()>) -> Result<()> {
    let socket = half.accept()?;
    play(half, socket)
}

fn finish_first(half: &mut Half, socket: Socket) -> Result<()> {
    half.facts.result("send", socket.send(b"question"));
    half.facts.done("shutdown", socket.shutdown(Shutdown::Write));
    half.facts.result("send-after", socket.send(b"more"));
    stream::drain(&socket).report(&mut half.facts, "read");
    Ok(())
}

fn finish_last(half: &mut Half, socket: Socket) -> Result<()> {
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.result("read-end", stream::recv_text(&socket));
    half.facts.result("read-again", stream::recv_text(&socket));
    let (sent, end) = stream::send_pattern(&socket, WORDS, 10_000);
    half.facts.say("sent", sent);
    half.facts.done("send", end);
    Ok(())
}

fn at_once(half: &mut Half, socket: Socket) -> Result<()> {
    let (sent, end) = stream::send_pattern(&socket, WORDS, 10_000);
    half.facts.say("sent", sent);
    half.facts.done("send", end);
    half.facts.done("shutdown", socket.shutdown(Shutdown::Write));
    stream::drain(&socket).report(&mut half.facts, "read");
    Ok(())
}

fn silent(half: &mut Half, socket: Socket) -> Result<()> {
    half.facts.done("shutdown", socket.shutdown(Shutdown::Write));
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn silent_last(half: &mut Half, socket: Socket) -> Result<()> {
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.result("send", socket.send(b"anything"));
    Ok(())
}

fn leave(half: &mut Half, socket: Socket) -> Result<()> {
    half.peer.hear("ready")?;
    drop(socket);
    half.peer.tell("closed")
}

/// Writing to one who has closed: taken, answered by a reset, and then no more.
fn left(half: &mut Half, socket: Socket) -> Result<()> {
    half.peer.tell("ready")?;
    half.peer.hear("closed")?;
    let ready = watch::until(&socket, Events::RDHUP, half.patience)?;
    half.facts.say("poll", watch::words(ready));
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.result("send", socket.send(b"x"));
    let ready = watch::until(&socket, Events::RESET, half.patience)?;
    half.facts.say("poll-after", watch::words(ready));
    half.facts.result("send-again", socket.send(b"x"));
    half.facts.result("send-once-more", socket.send(b"x"));
    half.facts.result("read-after", stream::recv_text(&socket));
    Ok(())
}

fn stop_reading(half: &mut Half, socket: Socket) -> Result<()> {
    half.facts.done("shutdown-read", socket.shutdown(Shutdown::Read));
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.say("poll", watch::words(watch::now(&socket)?));
    half.peer.tell("deaf")?;
    half.peer.hear("sent")?;
    half.facts.result("send", socket.send(b"still speaking"));
    half.peer.hear("heard").map(drop)
}

fn unread(half: &mut Half, socket: Socket) -> Result<()> {
    half.peer.hear("deaf")?;
    half.facts.result("send", socket.send(b"hello"));
    half.facts.say("poll", watch::words(watch::now(&socket)?));
    half.peer.tell("sent")?;
    half.facts.result("read", stream::recv_text(&socket));
    half.peer.tell("heard")
}

/// close() right after the last write: all of it must arrive, and then the end.
fn last_words(half: &mut Half, socket: Socket) -> Result<()> {
    let (sent, end) = stream::send_pattern(&socket, 3_000_000, 64 << 10);
    half.facts.say("sent", sent);
    half.facts.done("send", end);
    Ok(())
}

fn hear_all(half: &mut Half, socket: Socket) -> Result<()> {
    stream::drain(&socket).report(&mut half.facts, "read");
    Ok(())
}

fn lingering(half: &mut Half, socket: Socket) -> Result<()> {
    socket.set_linger(Some(half.patience))?;
    last_words(half, socket)
}

/// The connection ends with its last descriptor, not with the first.
fn duplicate(half: &mut Half, socket: Socket) -> Result<()> {
    let other = socket.try_clone()?;
    drop(socket);
    half.facts.result("send", other.send(&stream::pattern(0, 10)));
    Ok(())
}
