//! Options: that they hold what was set, before and after connecting, and what they say unasked.

use anyhow::Result;
use nix::libc::{self, c_int};
use socket2::Socket;

use crate::case::{ALL, Case, Family, case};
use crate::half::Half;
use crate::{stream, sys};

pub(crate) const CASES: &[Case] = &[
    case("options/unasked", ALL, unasked_client, unasked_server),
    case("options/set-before-connect", ALL, before_client, unasked_server),
    case("options/set-after-connect", ALL, after_client, after_server),
    case(
        "options/inherited-from-the-listener",
        ALL,
        inherited_client,
        inherited_server,
    ),
    case("options/path", ALL, path_client, path_server),
    case("options/refused", ALL, refused_client, refused_server),
];

type Option = (&'static str, c_int, c_int);

const TCP: c_int = libc::IPPROTO_TCP;
const SOL: c_int = libc::SOL_SOCKET;

/// What programs set, and a value that is not the default.
const SETTABLE: &[(Option, i32)] = &[
    (("TCP_NODELAY", TCP, libc::TCP_NODELAY), 1),
    (("TCP_CORK", TCP, libc::TCP_CORK), 1),
    (("SO_KEEPALIVE", SOL, libc::SO_KEEPALIVE), 1),
    (("TCP_KEEPIDLE", TCP, libc::TCP_KEEPIDLE), 77),
    (("TCP_KEEPINTVL", TCP, libc::TCP_KEEPINTVL), 7),
    (("TCP_KEEPCNT", TCP, libc::TCP_KEEPCNT), 5),
    (("TCP_USER_TIMEOUT", TCP, libc::TCP_USER_TIMEOUT), 12_345),
    (("TCP_SYNCNT", TCP, libc::TCP_SYNCNT), 3),
    (("TCP_LINGER2", TCP, libc::TCP_LINGER2), 9),
    (("SO_SNDBUF", SOL, libc::SO_SNDBUF), 30_000),
    (("SO_RCVBUF", SOL, libc::SO_RCVBUF), 30_000),
    (("SO_OOBINLINE", SOL, libc::SO_OOBINLINE), 1),
    (("SO_PRIORITY", SOL, libc::SO_PRIORITY), 3),
    (("SO_RCVLOWAT", SOL, libc::SO_RCVLOWAT), 4),
    (("SO_MARK", SOL, libc::SO_MARK), 0x77),
    (("TCP_NOTSENT_LOWAT", TCP, libc::TCP_NOTSENT_LOWAT), 20_000),
];

/// What programs only ask.
const TOLD: &[Option] = &[
    ("SO_TYPE", SOL, libc::SO_TYPE),
    ("SO_PROTOCOL", SOL, libc::SO_PROTOCOL),
    ("SO_DOMAIN", SOL, libc::SO_DOMAIN),
    ("SO_ERROR", SOL, libc::SO_ERROR),
    ("SO_ACCEPTCONN", SOL, libc::SO_ACCEPTCONN),
    ("SO_REUSEADDR", SOL, libc::SO_REUSEADDR),
    ("SO_REUSEPORT", SOL, libc::SO_REUSEPORT),
    ("SO_BROADCAST", SOL, libc::SO_BROADCAST),
    ("SO_DONTROUTE", SOL, libc::SO_DONTROUTE),
    ("SO_TIMESTAMP", SOL, libc::SO_TIMESTAMP),
    ("SO_BUSY_POLL", SOL, libc::SO_BUSY_POLL),
    ("SO_BINDTOIFINDEX", SOL, 62),
    ("TCP_FASTOPEN", TCP, libc::TCP_FASTOPEN),
    ("TCP_FASTOPEN_CONNECT", TCP, libc::TCP_FASTOPEN_CONNECT),
    ("TCP_DEFER_ACCEPT", TCP, libc::TCP_DEFER_ACCEPT),
    ("TCP_REPAIR", TCP, libc::TCP_REPAIR),
    ("TCP_THIN_LINEAR_TIMEOUTS", TCP, libc::TCP_THIN_LINEAR_TIMEOUTS),
    ("IP_TOS", libc::SOL_IP, libc::IP_TOS),
    ("IP_TTL", libc::SOL_IP, libc::IP_TTL),
    ("IP_TRANSPARENT", libc::SOL_IP, libc::IP_TRANSPARENT),
    ("IP_FREEBIND", libc::SOL_IP, libc::IP_FREEBIND),
    (
        "IP_BIND_ADDRESS_NO_PORT",
        libc::SOL_IP,
        libc::IP_BIND_ADDRESS_NO_PORT,
    ),
    ("IP_MTU_DISCOVER", libc::SOL_IP, libc::IP_MTU_DISCOVER),
];

fn tell_all(half: &mut Half, socket: &Socket) {
    // What the kernel adapts to the traffic is not asked unless it was set.
    let adaptive = ["SO_SNDBUF", "SO_RCVBUF"];
    let settable = SETTABLE.iter().map(|(option, _)| *option);
    for (key, level, name) in settable.chain(TOLD.iter().copied()) {
        if !adaptive.contains(&key) {
            half.facts.result(key, sys::int_option(socket, level, name));
        }
    }
    if half.family == Family::V6 {
        for (key, name) in [
            ("IPV6_V6ONLY", libc::IPV6_V6ONLY),
            ("IPV6_TCLASS", libc::IPV6_TCLASS),
        ] {
            half.facts
                .result(key, sys::int_option(socket, libc::SOL_IPV6, name));
        }
    }
    let control = sys::option(socket, TCP, libc::TCP_CONGESTION, 16);
    let name = control.map(|name| String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned());
    half.facts.result("TCP_CONGESTION", name);
    half.facts
        .result("SO_LINGER", socket.linger().map(|linger| format!("{linger:?}")));
}

fn set_all(half: &mut Half, socket: &Socket) {
    for ((key, level, name), value) in SETTABLE {
        let set = sys::set_int_option(socket, *level, *name, *value);
        half.facts.done(&format!("set-{key}"), set);
    }
}

fn tell_set(half: &mut Half, socket: &Socket) {
    for ((key, level, name), _) in SETTABLE {
        half.facts.result(key, sys::int_option(socket, *level, *name));
    }
}

fn unasked_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    tell_all(half, &socket);
    half.peer.tell("told")
}

fn unasked_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    tell_all(half, &socket);
    half.peer.hear("told").map(drop)
}

fn before_client(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    set_all(half, &socket);
    half.connect(&socket, half.at)?;
    tell_set(half, &socket);
    half.peer.tell("told")
}

fn after_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    set_all(half, &socket);
    tell_set(half, &socket);
    half.peer.hear("told").map(drop)
}

fn after_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    set_all(half, &socket);
    tell_set(half, &socket);
    half.peer.tell("told")
}

fn inherited_client(half: &mut Half) -> Result<()> {
    half.peer.hear("set")?;
    let socket = half.dial()?;
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn inherited_server(half: &mut Half) -> Result<()> {
    let Some(listener) = half.listener.take() else {
        return Ok(());
    };
    for ((_, level, name), value) in SETTABLE {
        sys::set_int_option(&listener, *level, *name, *value)?;
    }
    half.peer.tell("set")?;
    let (socket, _) = half.accept_from(&listener)?;
    tell_set(half, &socket);
    sys::set_int_option(&socket, TCP, libc::TCP_CORK, 0)?;
    half.facts.result("send", socket.send(b"hello"));
    Ok(())
}

/// What options tell of the way to the peer.
fn path(half: &mut Half, socket: &Socket) {
    half.facts
        .result("TCP_MAXSEG", sys::int_option(socket, TCP, libc::TCP_MAXSEG));
    if half.family.is_v4_on_the_wire() {
        half.facts
            .result("IP_MTU", sys::int_option(socket, libc::SOL_IP, libc::IP_MTU));
    } else {
        half.facts.result(
            "IPV6_MTU",
            sys::int_option(socket, libc::SOL_IPV6, libc::IPV6_MTU),
        );
    }
}

fn path_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    path(half, &socket);
    half.peer.hear("told").map(drop)
}

fn path_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    path(half, &socket);
    half.peer.tell("told")
}

fn nonsense(half: &mut Half, socket: &Socket) {
    half.facts.done(
        "TCP_ULP",
        sys::set_option(socket, TCP, libc::TCP_ULP, b"nonsense"),
    );
    half.facts.done(
        "TCP_CONGESTION",
        sys::set_option(socket, TCP, libc::TCP_CONGESTION, b"nonsense"),
    );
    half.facts.done(
        "TCP_NODELAY",
        sys::set_option(socket, TCP, libc::TCP_NODELAY, b"1"),
    );
    half.facts
        .done("unknown", sys::set_int_option(socket, TCP, 9999, 1));
    half.facts
        .result("unknown-get", sys::int_option(socket, TCP, 9999));
    half.facts
        .done("bind-device", socket.bind_device(Some(b"nosuch0")));
}

fn refused_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    nonsense(half, &socket);
    half.peer.hear("told").map(drop)
}

fn refused_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    nonsense(half, &socket);
    half.peer.tell("told")
}
