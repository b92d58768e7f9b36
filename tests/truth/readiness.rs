//! What poll, select and epoll say, and in which order.

use std::os::fd::AsFd;

use crate::watch::Events;
use anyhow::Result;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::select::{FdSet, select};
use nix::sys::time::{TimeVal, TimeValLike};
use socket2::Socket;

use crate::case::{ALL, Case, case, nothing};
use crate::half::Half;
use crate::refuse::CLOSED_PORT;
use crate::{stream, watch};

pub(crate) const CASES: &[Case] = &[
    case("readiness/life", ALL, life_client, life_server),
    case(
        "readiness/life-seen-by-the-server",
        ALL,
        life_server_as_client,
        life_client_as_server,
    ),
    case("readiness/select", ALL, select_client, select_server),
    case("readiness/epoll-edges", ALL, edges_client, edges_server),
    case("readiness/epoll-edges-when-refused", ALL, edges_refused, nothing),
    case("readiness/reset", ALL, reset_client, reset_server),
    case("readiness/listener", ALL, listener_client, listener_server),
];

/// poll() through the life of a connection that the other half drives.
fn watch_life(half: &mut Half, socket: &Socket) -> Result<()> {
    half.facts.say("silent", watch::words(watch::now(socket)?));
    half.peer.tell("speak")?;
    let ready = watch::until(socket, Events::IN, half.patience)?;
    half.facts.say("spoken-to", watch::words(ready));
    half.facts.result("read", stream::recv_text(socket));
    half.facts.say("read-all", watch::words(watch::now(socket)?));
    half.peer.tell("finish")?;
    let ready = watch::until(socket, Events::RDHUP, half.patience)?;
    half.facts.say("peer-finished", watch::words(ready));
    half.facts.result("read-end", stream::recv_text(socket));
    half.facts
        .done("shutdown", socket.shutdown(std::net::Shutdown::Write));
    let ready = watch::until(socket, Events::HUP, half.patience)?;
    half.facts.say("both-finished", watch::words(ready));
    half.facts.result("write-after", socket.send(b"x"));
    half.peer.tell("watched")
}

fn drive_life(half: &mut Half, socket: &Socket) -> Result<()> {
    half.peer.hear("speak")?;
    socket.send(b"hello")?;
    half.peer.hear("finish")?;
    socket.shutdown(std::net::Shutdown::Write)?;
    half.facts.result("read", stream::recv_text(socket));
    half.peer.hear("watched").map(drop)
}

fn life_client(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    half.facts.say("unconnected", watch::words(watch::now(&socket)?));
    half.connect(&socket, half.at)?;
    watch_life(half, &socket)
}

fn life_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    drive_life(half, &socket)
}

fn life_server_as_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    drive_life(half, &socket)
}

fn life_client_as_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    watch_life(half, &socket)
}

fn select_client(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    socket.set_nonblocking(true)?;
    half.facts.done("connect", socket.connect(&half.at.into()));
    watch::wait(&socket, Events::OUT, half.patience)?;
    half.facts.say("connected", selected(&socket)?);
    half.peer.tell("speak")?;
    watch::wait(&socket, Events::IN, half.patience)?;
    half.facts.say("spoken-to", selected(&socket)?);
    let refused = half.socket()?;
    refused.set_nonblocking(true)?;
    let nobody = half.at_port(CLOSED_PORT);
    half.facts.done("connect-nobody", refused.connect(&nobody.into()));
    watch::wait(&refused, Events::OUT, half.patience)?;
    half.facts.say("refused", selected(&refused)?);
    Ok(())
}

fn select_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    half.peer.hear("speak")?;
    socket.send(b"hello")?;
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn selected(socket: &Socket) -> Result<String> {
    let (mut read, mut write, mut except) = (FdSet::new(), FdSet::new(), FdSet::new());
    for set in [&mut read, &mut write, &mut except] {
        set.insert(socket.as_fd());
    }
    select(None, &mut read, &mut write, &mut except, &mut TimeVal::zero())?;
    let sets = [(&read, "read"), (&write, "write"), (&except, "except")];
    let names: Vec<&str> = sets
        .into_iter()
        .filter(|(set, _)| set.contains(socket.as_fd()))
        .map(|(_, name)| name)
        .collect();
    Ok(names.join("|"))
}

/// One event at a time, edge-triggered, with the other half's steps between.
struct Edges(Epoll);

impl Edges {
    fn of(socket: &Socket) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let events = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLPRI
            | EpollFlags::EPOLLET;
        epoll.add(socket, EpollEvent::new(events, 0))?;
        Ok(Self(epoll))
    }

    fn next(&self, half: &mut Half, key: &str, wanted: EpollFlags) -> Result<()> {
        let mut events = [EpollEvent::empty()];
        let limit = EpollTimeout::try_from(half.patience)?;
        loop {
            let n = self.0.wait(&mut events, limit)?;
            if n == 0 {
                half.facts.say(key, "nothing");
                return Ok(());
            }
            let got = events[0].events();
            // An acknowledgement makes an edge of its own, sooner or later; only the wanted one is told.
            if got.contains(wanted) {
                let bits = i16::try_from(got.bits() & 0x7fff)?;
                // EPOLL* and POLL* have the same values.
                half.facts.say(key, watch::words(Events(bits)));
                return Ok(());
            }
        }
    }
}

fn edges_client(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    socket.set_nonblocking(true)?;
    half.facts.done("connect", socket.connect(&half.at.into()));
    let edges = Edges::of(&socket)?;
    edges.next(half, "connected", EpollFlags::EPOLLOUT)?;
    half.peer.tell("speak")?;
    edges.next(half, "spoken-to", EpollFlags::EPOLLIN)?;
    half.facts.result("read", stream::recv_text(&socket));
    half.peer.tell("finish")?;
    edges.next(half, "finished", EpollFlags::EPOLLRDHUP)?;
    socket.shutdown(std::net::Shutdown::Write)?;
    edges.next(half, "both-finished", EpollFlags::EPOLLHUP)?;
    half.peer.tell("watched")
}

fn edges_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    drive_life(half, &socket)
}

fn edges_refused(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    socket.set_nonblocking(true)?;
    let nobody = half.at_port(CLOSED_PORT);
    half.facts.done("connect", socket.connect(&nobody.into()));
    let edges = Edges::of(&socket)?;
    // The kernel sets one after the other, and makes an edge of each.
    let all = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP | EpollFlags::EPOLLRDHUP;
    edges.next(half, "refused", all)
}

fn reset_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    // A reset that comes before connect() has returned is its answer, which is a race without a sidecar too.
    half.peer.tell("connected")?;
    let ready = watch::until(&socket, Events::RESET, half.patience)?;
    half.facts.say("poll", watch::words(ready));
    half.facts.result("SO_ERROR", crate::connect::pending(&socket));
    half.facts.say("poll-after", watch::words(watch::now(&socket)?));
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.result("read-again", stream::recv_text(&socket));
    half.facts.result("write", socket.send(b"x"));
    Ok(())
}

fn reset_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    half.peer.hear("connected")?;
    socket.set_linger(Some(std::time::Duration::ZERO))?;
    Ok(())
}

fn listener_client(half: &mut Half) -> Result<()> {
    half.peer.hear("watching")?;
    let _socket = half.dial()?;
    half.peer.tell("dialled")?;
    half.peer.hear("watched").map(drop)
}

fn listener_server(half: &mut Half) -> Result<()> {
    let Some(listener) = half.listener.take() else {
        return Ok(());
    };
    half.facts.say("idle", watch::words(watch::now(&listener)?));
    half.peer.tell("watching")?;
    let ready = watch::until(&listener, Events::IN, half.patience)?;
    half.facts.say("called", watch::words(ready));
    half.peer.hear("dialled")?;
    let _socket = half.accept_from(&listener)?;
    half.facts.say("accepted", watch::words(watch::now(&listener)?));
    listener.set_nonblocking(true)?;
    half.facts.done("accept-again", listener.accept().map(drop));
    half.peer.tell("watched")
}
