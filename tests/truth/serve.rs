//! The server's side of the program: runs the other half of whatever case a client asks for.

use std::path::Path;
use std::{fs, thread};

use anyhow::{Context, Result};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::case;
use crate::facts::Facts;
use crate::half::{Half, fresh_port};
use crate::peer::{Begin, Message, Peer};
use crate::run::TALK;

pub(crate) fn run(control: &Path) -> Result<()> {
    let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    // It gets its name when it listens: whoever finds it may come in.
    let unnamed = control.with_extension("new");
    listener
        .bind(&SockAddr::unix(&unnamed)?)
        .with_context(|| format!("listen at {}", unnamed.display()))?;
    listener.listen(128)?;
    fs::rename(&unnamed, control).with_context(|| format!("listen at {}", control.display()))?;
    loop {
        let (socket, _) = listener.accept()?;
        thread::spawn(move || {
            if let Err(error) = one(socket) {
                eprintln!("{error:#}");
            }
        });
    }
}

fn one(socket: Socket) -> Result<()> {
    socket.set_read_timeout(Some(TALK))?;
    let mut peer = Peer::new(socket);
    let Begin {
        case,
        family,
        world,
        patience,
    } = peer.begin()?;
    let case = case::all()
        .find(|known| known.name == case)
        .with_context(|| format!("no case {case}; are both programs of one build?"))?;
    let mut half = Half {
        family,
        facts: Facts::default(),
        peer,
        at: (world.server(family), 0).into(),
        world,
        patience,
        listener: None,
    };
    let listener = half.listen(fresh_port())?;
    let own = listener.local_addr()?.as_socket().context("a TCP listener")?;
    half.at.set_port(own.port());
    half.listener = Some(listener);
    half.peer.tell_number("listening", own.port().into())?;
    if let Err(error) = (case.server)(&mut half) {
        half.facts.say("stopped", format_args!("{error:#}"));
    }
    half.peer.send(&Message::End(half.facts))?;
    // The client's half may still have something to tell.
    half.peer.end().map(drop)
}
