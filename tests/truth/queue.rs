//! What waits to be read, and how it can be looked at without reading it.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;

use crate::watch::Events;
use anyhow::Result;
use nix::libc;
use socket2::Socket;

use crate::case::{ALL, Case, case};
use crate::close::{accepted, dialled};
use crate::half::Half;
use crate::{stream, sys, watch};

pub(crate) const CASES: &[Case] = &[
    case(
        "queue/at-the-client",
        ALL,
        |h| dialled(h, look),
        |h| accepted(h, fill),
    ),
    case(
        "queue/at-the-server",
        ALL,
        |h| dialled(h, fill),
        |h| accepted(h, look),
    ),
    case(
        "queue/low-water-mark-at-the-client",
        ALL,
        |h| dialled(h, low_water),
        |h| accepted(h, fill_slowly),
    ),
    case(
        "queue/low-water-mark-at-the-server",
        ALL,
        |h| dialled(h, fill_slowly),
        |h| accepted(h, low_water),
    ),
    case(
        "queue/vectors",
        ALL,
        |h| dialled(h, scatter),
        |h| accepted(h, gather),
    ),
];

/// Waits until so many bytes are there to be read.
fn until_queued(half: &Half, socket: &Socket, bytes: i32) -> Result<i32> {
    let mut queued = 0;
    watch::until_true(half.patience, || {
        queued = sys::count(socket, libc::FIONREAD)?;
        Ok(queued >= bytes)
    })?;
    Ok(queued)
}

/// Waits until the other end's kernel has all that was sent.
pub(crate) fn until_acknowledged(half: &Half, socket: &Socket) -> Result<()> {
    watch::until_true(half.patience, || Ok(sys::count(socket, libc::TIOCOUTQ)? == 0))?;
    Ok(())
}

fn fill(half: &mut Half, socket: Socket) -> Result<()> {
    half.facts.result("send", socket.send(&stream::pattern(0, 1000)));
    half.peer.hear("looked")?;
    until_acknowledged(half, &socket)?;
    half.facts.result("SIOCOUTQ", sys::count(&socket, libc::TIOCOUTQ));
    half.facts
        .result("send-rest", socket.send(&stream::pattern(1000, 500)));
    half.peer.hear("read").map(drop)
}

fn look(half: &mut Half, socket: Socket) -> Result<()> {
    let queued = until_queued(half, &socket, 1000)?;
    half.facts.say("FIONREAD", queued);
    let mut room = [MaybeUninit::uninit(); 4096];
    half.facts.result("peek", socket.peek(&mut room));
    half.facts.result("peek-again", socket.peek(&mut room[..100]));
    half.facts
        .result("FIONREAD-peeked", sys::count(&socket, libc::FIONREAD));
    let some = stream::take(&socket, 300)?;
    half.facts.say("read", stream::is_pattern(0, &some));
    half.facts
        .result("FIONREAD-read", sys::count(&socket, libc::FIONREAD));
    let skipped = socket.recv_with_flags(&mut room[..200], libc::MSG_TRUNC);
    half.facts.result("skip", skipped);
    half.facts
        .result("FIONREAD-skipped", sys::count(&socket, libc::FIONREAD));
    half.peer.tell("looked")?;
    let all = socket.recv_with_flags(&mut room[..1000], libc::MSG_WAITALL);
    half.facts.result("wait-for-all", all);
    half.facts.result(
        "do-not-wait",
        socket.recv_with_flags(&mut room, libc::MSG_DONTWAIT),
    );
    half.peer.tell("read")
}

fn low_water(half: &mut Half, socket: Socket) -> Result<()> {
    sys::set_int_option(&socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 10)?;
    let queued = until_queued(half, &socket, 5)?;
    half.facts.say("queued", queued);
    half.facts.say("poll", watch::words(watch::now(&socket)?));
    half.peer.tell("more")?;
    let ready = watch::until(&socket, Events::IN, half.patience)?;
    half.facts.say("poll-after", watch::words(ready));
    half.facts.result("FIONREAD", sys::count(&socket, libc::FIONREAD));
    half.facts.result("read", stream::recv(&socket, &mut [0; 100]));
    half.peer.tell("read")
}

fn fill_slowly(half: &mut Half, socket: Socket) -> Result<()> {
    half.facts.result("send", socket.send(b"12345"));
    half.peer.hear("more")?;
    half.facts.result("send-more", socket.send(b"67890"));
    half.peer.hear("read").map(drop)
}

fn scatter(half: &mut Half, socket: Socket) -> Result<()> {
    let all = stream::pattern(0, 3000);
    let parts: Vec<std::io::IoSlice<'_>> = all.chunks(1000).map(std::io::IoSlice::new).collect();
    half.facts.result("writev", socket.send_vectored(&parts));
    half.peer.hear("read").map(drop)
}

fn gather(half: &mut Half, socket: Socket) -> Result<()> {
    until_queued(half, &socket, 3000)?;
    let mut parts = [vec![0; 700], vec![0; 2000], vec![0; 1000]];
    let n = {
        let mut slices: Vec<IoSliceMut<'_>> = parts.iter_mut().map(|part| IoSliceMut::new(part)).collect();
        nix::sys::uio::readv(&socket, &mut slices)
    };
    half.facts.result("readv", n.map_err(Into::into));
    half.facts
        .say("intact", stream::is_pattern(0, &parts.concat()[..3000]));
    half.peer.tell("read")
}
