//! Urgent data: TCP's one byte out of band, which telnet and FTP's ABOR still use.

use std::io;
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
        "urgent/to-the-server",
        ALL,
        |h| dialled(h, shout),
        |h| accepted(h, listen),
    ),
    case(
        "urgent/to-the-client",
        ALL,
        |h| dialled(h, listen),
        |h| accepted(h, shout),
    ),
    case(
        "urgent/inline-to-the-server",
        ALL,
        |h| dialled(h, shout),
        |h| accepted(h, listen_inline),
    ),
    case(
        "urgent/inline-to-the-client",
        ALL,
        |h| dialled(h, listen_inline),
        |h| accepted(h, shout),
    ),
];

const SIOCATMARK: libc::c_ulong = 0x8905;

fn shout(half: &mut Half, socket: Socket) -> Result<()> {
    half.peer.hear("listening")?;
    half.facts.result("send", socket.send(b"before"));
    half.facts.result("send-urgent", socket.send_out_of_band(b"!"));
    half.facts.result("send-after", socket.send(b"after"));
    socket.shutdown(std::net::Shutdown::Write)?;
    half.peer.hear("heard").map(drop)
}

fn listen(half: &mut Half, socket: Socket) -> Result<()> {
    half.peer.tell("listening")?;
    // The end of the stream says that all is there.
    let ready = watch::until(&socket, Events::RDHUP, half.patience)?;
    half.facts.say("poll", watch::words(ready));
    half.facts.result("at-mark", sys::count(&socket, SIOCATMARK));
    let first = stream::recv_text(&socket);
    half.facts.result("at-mark-then", sys::count(&socket, SIOCATMARK));
    let mut byte = [MaybeUninit::uninit(); 8];
    let urgent = socket.recv_out_of_band(&mut byte);
    let rest = stream::recv_text(&socket);
    half.facts.result("read-end", stream::recv_text(&socket));
    let bytes = text(&first).len() + urgent.as_ref().copied().unwrap_or(0) + text(&rest).len();
    half.facts.say("bytes", bytes);
    half.facts.result("read", first);
    half.facts.result("read-urgent", urgent);
    half.facts.result("read-rest", rest);
    half.peer.tell("heard")
}

fn listen_inline(half: &mut Half, socket: Socket) -> Result<()> {
    socket.set_out_of_band_inline(true)?;
    half.peer.tell("listening")?;
    let ready = watch::until(&socket, Events::RDHUP, half.patience)?;
    half.facts.say("poll", watch::words(ready));
    let first = stream::recv_text(&socket);
    half.facts.result("at-mark", sys::count(&socket, SIOCATMARK));
    let rest = stream::recv_text(&socket);
    half.facts.result("read-end", stream::recv_text(&socket));
    half.facts.say("text", text(&first).to_owned() + text(&rest));
    half.facts.result("read", first);
    half.facts.result("read-rest", rest);
    half.peer.tell("heard")
}

/// What a read brought, if that was bytes.
fn text(read: &io::Result<String>) -> &str {
    match read {
        Ok(text) if text != "EOF" => text,
        _ => "",
    }
}
