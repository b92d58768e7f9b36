//! io_uring: connect, accept, send and receive without the system calls that bear these names.

mod sys;

use std::io;

use anyhow::Result;
use socket2::{SockAddr, Socket};

use crate::case::{ALL, Case, case};
use crate::facts::word;
use crate::half::Half;
use crate::names;
use crate::watch::Events;
use sys::Ring;

pub(crate) const CASES: &[Case] = &[
    case("uring/connect", ALL, |h| alone(h, connect), |h| alone(h, accept)),
    case("uring/refused", ALL, |h| alone(h, refused), crate::case::nothing),
    case(
        "uring/unreachable",
        ALL,
        |h| alone(h, unreachable),
        crate::case::nothing,
    ),
];

/// On a thread that ends with the ring: its clean-up interrupts system calls of the thread that used it.
fn alone(half: &mut Half, play: fn(&mut Half) -> Result<()>) -> Result<()> {
    let played = std::thread::scope(|scope| scope.spawn(|| play(half)).join());
    played.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// `None` where the kernel has no io_uring, or does not let us: said as a fact, the same with and without interception.
fn ring(half: &mut Half) -> Option<Ring> {
    match Ring::new() {
        Ok(ring) => Some(ring),
        Err(error) => {
            half.facts.say("io_uring", crate::facts::errno(&error));
            None
        }
    }
}

fn connect(half: &mut Half) -> Result<()> {
    let Some(mut ring) = ring(half) else { return Ok(()) };
    let socket = half.socket()?;
    let at = SockAddr::from(half.at);
    half.facts.result("connect", ring.connect(&socket, &at));
    half.own_port(&socket, "client-port")?;
    names::tell(half, &socket);
    half.facts.result("send", ring.send(&socket, b"hello"));
    let mut room = [0; 64];
    half.facts.result("recv", ring.recv(&socket, &mut room));
    half.facts.result("recv-end", ring.recv(&socket, &mut room));
    Ok(())
}

fn accept(half: &mut Half) -> Result<()> {
    let Some(mut ring) = ring(half) else { return Ok(()) };
    let Some(listener) = half.listener.take() else {
        return Ok(());
    };
    // An accept that nobody answers would wait for ever, so it is asked for when somebody is there.
    if crate::watch::wait(&listener, Events::IN, half.patience)?.is_empty() {
        half.facts.say("accept", "nobody came");
        return Ok(());
    }
    let (socket, from): (Socket, io::Result<SockAddr>) = ring.accept(&listener)?;
    half.impatient(&socket)?;
    half.facts.address("accept", from);
    names::tell(half, &socket);
    let mut room = [0; 64];
    half.facts.result("recv", ring.recv(&socket, &mut room));
    half.facts.result("send", ring.send(&socket, b"answer"));
    Ok(())
}

fn refused(half: &mut Half) -> Result<()> {
    let Some(mut ring) = ring(half) else { return Ok(()) };
    let socket = half.socket()?;
    let nobody = half.at_port(crate::refuse::CLOSED_PORT);
    half.facts
        .say("connect", word(ring.connect(&socket, &nobody.into())));
    Ok(())
}

fn unreachable(half: &mut Half) -> Result<()> {
    let Some(mut ring) = ring(half) else { return Ok(()) };
    let socket = half.socket()?;
    let at = crate::refuse::in_network(half.family, 98);
    half.facts.say("connect", word(ring.connect(&socket, &at.into())));
    Ok(())
}
