//! TCP_INFO: not its numbers, which are the network's, but whether they could be true.

use std::net::Shutdown;

use crate::watch::Events;
use anyhow::{Context, Result};
use nix::libc;
use socket2::Socket;

use crate::case::{ALL, Case, case};
use crate::half::Half;
use crate::queue::until_acknowledged;
use crate::refuse::silent;
use crate::{stream, sys, watch};

pub(crate) const CASES: &[Case] = &[
    case("info/life", ALL, life_client, life_server),
    case("info/in-progress", ALL, in_progress, crate::case::nothing),
];

const SENT: usize = 5000;

/// `struct tcp_info` of linux/tcp.h, as bytes: by offset, because C libraries lag behind it.
struct Info(Vec<u8>);

impl Info {
    fn of(socket: &Socket) -> Result<Self> {
        Ok(Self(sys::option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, 512)?))
    }

    fn u32(&self, at: usize) -> Result<u32> {
        let bytes = self.0.get(at..at + 4).context("a longer tcp_info")?;
        Ok(u32::from_ne_bytes(bytes.try_into()?))
    }

    fn u64(&self, at: usize) -> Result<u64> {
        let bytes = self.0.get(at..at + 8).context("a longer tcp_info")?;
        Ok(u64::from_ne_bytes(bytes.try_into()?))
    }

    fn state(&self) -> u8 {
        self.0[0]
    }
}

fn tell(half: &mut Half, socket: &Socket, moment: &str) -> Result<()> {
    let info = Info::of(socket)?;
    let facts = &mut half.facts;
    let mut say = |key: &str, value: String| facts.say(&format!("{moment}-{key}"), value);
    say("state", info.state().to_string());
    say("retransmits", info.0[2].to_string());
    // timestamps, selective acknowledgement, window scaling
    say("options", (info.0[5] & 0b111).to_string());
    say(
        "mss-plausible",
        (536..=65_535).contains(&info.u32(16)?).to_string(),
    );
    say("lost", info.u32(32)?.to_string());
    say(
        "path-mtu-plausible",
        (1280..=65_536).contains(&info.u32(60)?).to_string(),
    );
    say("round-trip-measured", (info.u32(68)? > 0).to_string());
    say("window-open", (info.u32(80)? > 0).to_string());
    say("bytes-acknowledged", info.u64(120)?.to_string());
    say("bytes-received", info.u64(128)?.to_string());
    Ok(())
}

fn life_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    half.peer.hear("accepted")?;
    tell(half, &socket, "connected")?;
    socket.send(&stream::pattern(0, SENT))?;
    half.peer.hear("read")?;
    until_acknowledged(half, &socket)?;
    tell(half, &socket, "sent")?;
    half.peer.tell("told")?;
    watch::until(&socket, Events::RDHUP, half.patience)?;
    half.facts.say("peer-finished-state", Info::of(&socket)?.state());
    half.peer.tell("watched")?;
    half.peer.hear("told")?;
    Ok(())
}

fn life_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    tell(half, &socket, "accepted")?;
    half.peer.tell("accepted")?;
    stream::take(&socket, SENT)?;
    tell(half, &socket, "read")?;
    half.peer.tell("read")?;
    half.peer.hear("told")?;
    socket.shutdown(Shutdown::Write)?;
    half.peer.hear("watched")?;
    until_acknowledged(half, &socket)?;
    half.facts.say("finished-state", Info::of(&socket)?.state());
    half.peer.tell("told")
}

fn in_progress(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    socket.set_nonblocking(true)?;
    half.facts
        .done("connect", socket.connect(&silent(half.family).into()));
    half.facts.say("state", Info::of(&socket)?.state());
    Ok(())
}
