//! What is not TCP, and must not be touched: UDP, DNS, raw and unix sockets.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;

use anyhow::{Result, bail};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::case::{ALL, Case, Family, ONE, UNMAPPED, case};
use crate::half::Half;
use crate::refuse::CLOSED_PORT;
use crate::watch::{self, Events};
use crate::{names, stream, sys};

pub(crate) const CASES: &[Case] = &[
    case("udp/unconnected", ALL, unconnected, echo),
    case("udp/connected", ALL, connected, echo),
    case("udp/refused", ALL, refused, crate::case::nothing),
    case("udp/dns", UNMAPPED, dns_client, dns_server),
    case("udp/reconnected", ALL, reconnected, echo),
    case("udp/raw-icmp", UNMAPPED, ping, crate::case::nothing),
    case("udp/unix", ONE, unix, crate::case::nothing),
];

/// Echoes datagrams until the client has no more.
const PARTING: &[u8] = b"that is all";

/// How often a datagram is sent to which nothing comes back.
const TRIES: u32 = 8;

/// Sends until something comes back, and gives what the first call returned. Other cases fill the queue between two
/// network namespaces meanwhile, and the kernel drops datagrams and ICMP errors that it has no room for
/// (`net.core.netdev_max_backlog`).
fn ask(half: &Half, socket: &Socket, send: impl Fn() -> io::Result<usize>) -> io::Result<usize> {
    let sent = send()?;
    for _ in 1..TRIES {
        // An error is told unasked.
        if !watch::wait(socket, Events::IN, half.patience / TRIES)?.is_empty() {
            break;
        }
        send()?;
    }
    Ok(sent)
}

/// The answer that is not one more to an earlier question.
fn answer(socket: &Socket, earlier: &[u8]) -> io::Result<(Vec<u8>, SockAddr)> {
    loop {
        let (bytes, from) = recv_from(socket)?;
        if bytes != earlier {
            return Ok((bytes, from));
        }
    }
}

/// Lets the server end. Where it has ended already, its answer was lost.
fn part(half: &Half, socket: &Socket, at: SocketAddr) {
    let _: io::Result<usize> = ask(half, socket, || socket.send_to(PARTING, &at.into()));
}

fn socket(half: &Half) -> io::Result<Socket> {
    let socket = Socket::new(half.domain(), Type::DGRAM, Some(Protocol::UDP))?;
    half.impatient(&socket)?;
    Ok(socket)
}

fn recv_from(socket: &Socket) -> io::Result<(Vec<u8>, SockAddr)> {
    let mut room = [MaybeUninit::<u8>::uninit(); 2048];
    // peek tells the address, read the bytes: neither needs to look at memory that may not be there.
    let from = socket.peek_from(&mut room)?.1;
    let mut bytes = vec![0; 2048];
    let n = stream::recv(socket, &mut bytes)?;
    bytes.truncate(n);
    Ok((bytes, from))
}

fn echo(half: &mut Half) -> Result<()> {
    let socket = socket(half)?;
    half.bind_any(&socket, 0)?;
    serve(half, &socket)
}

fn serve(half: &mut Half, socket: &Socket) -> Result<()> {
    half.tell_of("port", socket)?;
    let mut last = Vec::new();
    loop {
        let (bytes, from) = recv_from(socket)?;
        let sent = socket.send_to(&bytes, &from);
        if bytes == PARTING {
            return Ok(());
        }
        if bytes != last {
            half.facts.say("read", String::from_utf8_lossy(&bytes));
            half.facts.address("from", Ok(from));
            half.facts.result("sendto", sent);
        }
        last = bytes;
    }
}

fn server_at(half: &mut Half) -> Result<SocketAddr> {
    half.hear_of("port", "listener")
}

fn unconnected(half: &mut Half) -> Result<()> {
    let at = server_at(half)?;
    let socket = socket(half)?;
    for (text, earlier) in [("one", ""), ("two", "one")] {
        let sent = ask(half, &socket, || socket.send_to(text.as_bytes(), &at.into()));
        half.facts.result("sendto", sent);
        half.own_port(&socket, "client-port")?;
        let (bytes, from) = answer(&socket, earlier.as_bytes())?;
        half.facts.say("read", String::from_utf8_lossy(&bytes));
        half.facts.address("from", Ok(from));
    }
    names::tell(half, &socket);
    part(half, &socket, at);
    Ok(())
}

fn connected(half: &mut Half) -> Result<()> {
    let at = server_at(half)?;
    let socket = socket(half)?;
    half.facts.done("connect", socket.connect(&at.into()));
    half.own_port(&socket, "client-port")?;
    names::tell(half, &socket);
    let sent = ask(half, &socket, || socket.send(b"one"));
    half.facts.result("send", sent);
    half.facts.result("read", stream::recv_text(&socket));
    part(half, &socket, at);
    Ok(())
}

fn reconnected(half: &mut Half) -> Result<()> {
    let at = server_at(half)?;
    let socket = socket(half)?;
    half.facts.done(
        "connect-nobody",
        socket.connect(&half.at_port(CLOSED_PORT).into()),
    );
    half.facts.done("connect", socket.connect(&at.into()));
    half.own_port(&socket, "client-port")?;
    let sent = ask(half, &socket, || socket.send(b"one"));
    half.facts.result("send", sent);
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.done("disconnect", sys::disconnect(&socket));
    half.facts.address("getpeername", socket.peer_addr());
    half.facts.result("send-after", socket.send(b"two"));
    part(half, &socket, at);
    Ok(())
}

fn refused(half: &mut Half) -> Result<()> {
    let socket = socket(half)?;
    half.facts
        .done("connect", socket.connect(&half.at_port(CLOSED_PORT).into()));
    let sent = ask(half, &socket, || socket.send(b"one"));
    half.facts.result("send", sent);
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

/// Port 53, by connect and by sendto, as resolvers do.
fn dns_client(half: &mut Half) -> Result<()> {
    let at = server_at(half)?;
    half.facts.port(53, "53");
    let unbound = socket(half)?;
    let sent = ask(half, &unbound, || unbound.send_to(b"question", &at.into()));
    half.facts.result("sendto", sent);
    half.own_port(&unbound, "client-port")?;
    let (bytes, from) = recv_from(&unbound)?;
    half.facts.say("read", String::from_utf8_lossy(&bytes));
    half.facts.address("from", Ok(from));
    let bound = socket(half)?;
    half.facts.done("connect", bound.connect(&at.into()));
    half.own_port(&bound, "client-port-2")?;
    names::tell(half, &bound);
    let sent = ask(half, &bound, || bound.send(b"another"));
    half.facts.result("send", sent);
    half.facts.result("read", stream::recv_text(&bound));
    part(half, &bound, at);
    Ok(())
}

fn dns_server(half: &mut Half) -> Result<()> {
    let socket = socket(half)?;
    half.bind_any(&socket, 53)?;
    serve(half, &socket)
}

/// An echo request by hand.
fn ping(half: &mut Half) -> Result<()> {
    let (domain, protocol, request, answer) = match half.family {
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6, 128_u8, 129_u8),
        _ => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    half.impatient(&socket)?;
    // ICMPv6's checksum is the kernel's work, ICMP's is ours: with an identifier and a sequence number of
    // 0x1234 and 1 the sum is known.
    let checksum = !(u16::from(request) << 8).wrapping_add(0x1234).wrapping_add(1);
    let mut packet = vec![request, 0];
    packet.extend(checksum.to_be_bytes());
    packet.extend([0x12, 0x34, 0, 1]);
    let to = SocketAddr::new(half.world.server(half.family), 0);
    half.facts.result("sendto", socket.send_to(&packet, &to.into()));
    let header = if half.family == Family::V6 { 0 } else { 20 };
    // The socket sees what others are answered, too.
    for _ in 0..100 {
        if watch::wait(&socket, Events::IN, half.patience / TRIES)?.is_empty() {
            socket.send_to(&packet, &to.into())?;
            continue;
        }
        let (bytes, from) = recv_from(&socket)?;
        let message = bytes.get(header..).unwrap_or_default();
        if message.first() == Some(&answer) && message.get(4..8) == Some(&packet[4..8]) {
            let from = from.as_socket().map(|from| from.ip());
            let true_peer = from == Some(IpAddr::to_canonical(&to.ip()));
            half.facts.say("answered-by-the-server", true_peer);
            return Ok(());
        }
    }
    bail!("no answer")
}

fn unix(half: &mut Half) -> Result<()> {
    let (one, other) = UnixStream::pair()?;
    let (one, other) = (Socket::from(one), Socket::from(other));
    half.facts.result("send", one.send(b"hello"));
    half.facts.result("read", stream::recv_text(&other));
    half.facts.say("unnamed", one.peer_addr()?.is_unnamed());
    let path = std::env::temp_dir().join(format!("outrigger-truth-{}.sock", std::process::id()));
    let listener = std::os::unix::net::UnixListener::bind(&path)?;
    let client = UnixStream::connect(&path);
    std::fs::remove_file(&path)?;
    half.facts.done(
        "connect",
        client.as_ref().map(drop).map_err(|e| io::Error::from(e.kind())),
    );
    let (accepted, from) = listener.accept()?;
    half.facts.say("accept-unnamed", from.is_unnamed());
    half.facts
        .say("peer-is-path", client?.peer_addr()?.as_pathname() == Some(&path));
    drop(accepted);
    Ok(())
}
