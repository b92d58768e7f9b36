//! Dialling plain TCP, with the socket flagged as our own before it connects.

use std::cell::Cell;
use std::io;
use std::net::{self, IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

use super::{Error, Step, sys};
use crate::model::leg;

/// Flags a socket so that the connect hook leaves it alone. Without it a dial would come back to ourselves.
pub type Mark = Rc<dyn Fn(BorrowedFd<'_>) -> io::Result<()>>;

/// On tunnels only: they are always drained, so unacknowledged data means a dead peer. On an application's socket
/// it would kill a peer that is alive and merely does not read (wire.md 1.10).
const TUNNEL_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bounds what waits unsent in the kernel for a tunnel, where a later urgent frame would queue behind it.
const TUNNEL_NOTSENT_LOWAT: u32 = 128 * 1024;

/// Where a connection is to come from, as far as that can be had.
#[derive(Clone, Copy, Default)]
pub struct From<'a> {
    /// The interface that it goes out by.
    pub device: Option<u32>,
    /// The address of this host that it comes from, on any port.
    pub source: Option<IpAddr>,
    /// The address and port that the other side is to see.
    pub client: Option<(SocketAddr, &'a BoundPorts)>,
    /// The client's address is the one that the kernel would choose by itself: only its port has to be asked for.
    pub is_routed: bool,
    /// The other side is an application of this pod.
    pub to_application: bool,
}

/// A dialled connection.
pub type Dialled = AsyncFd<net::TcpStream>;

/// A connection to an application or to a host outside the mesh. Without keep-alive, TCP_NODELAY and TCP_NOTSENT_LOWAT: most
/// connections carry one exchange and are gone, and whoever relays one that carries more sets them.
///
/// A client's own port may be taken, as when an earlier connection to the same server lingers. Then the kernel chooses
/// another one, and `false` comes with the stream.
pub async fn dial(
    addr: SocketAddr,
    mark: impl Fn(BorrowedFd<'_>) -> io::Result<()>,
    from: From<'_>,
    limit: Duration,
) -> Result<(Dialled, bool), Error> {
    let connecting = async {
        let marked = || -> io::Result<Socket> {
            let socket = socket_for(addr)?;
            if from.to_application {
                socket.set_tcp_mss(leg::LOOPBACK_MSS)?;
                socket.set_recv_buffer_size(leg::LOOPBACK_RECEIVE)?;
            }
            if let Some(device) = from.device {
                let name = nix::net::if_::if_indextoname(device)?;
                socket.bind_device(Some(name.to_bytes()))?;
            }
            if let Some(source) = from.source {
                sys::choose_late(socket.as_fd())?;
                socket.bind(&SocketAddr::new(source, 0).into())?;
            }
            mark(socket.as_fd())?;
            Ok(socket)
        };
        let Some((client, bound)) = from.client else {
            return Ok((connect(marked()?, addr).await?, true));
        };
        if client.is_ipv4() == addr.is_ipv4() {
            let choose = if from.is_routed { choose_port } else { choose };
            for way in [choose as Way, bind] {
                let socket = marked()?;
                if way(bound, &socket, client).is_err() {
                    continue;
                }
                match connect(socket, addr).await {
                    Err(error) if is_taken(&error) => {}
                    connected => return Ok((connected?, true)),
                }
            }
        }
        Ok((connect(marked()?, addr).await?, false))
    };
    finish(addr, limit, connecting).await
}

/// Connects, or says why not.
///
/// Since Linux 5.18 an ICMP error that ends an IPv4 handshake is first put into the socket's error queue (whoever asked for it
/// with IP_RECVERR or not), which wakes with EPOLLERR, and becomes SO_ERROR a moment later; while a system call holds the
/// socket's lock, it never does (`tcp_v4_err`). Whoever asks for SO_ERROR alone then takes a socket for connected that still
/// waits for an answer.
async fn connect(socket: Socket, addr: SocketAddr) -> io::Result<Dialled> {
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => return Err(error),
        _ => {}
    }
    let stream = sys::watch(socket)?;
    let news = stream.ready(Interest::WRITABLE | Interest::ERROR).await?.ready();
    // EPOLLOUT comes from a socket that has left SYN_SENT, EPOLLERR and EPOLLHUP from one with an error or a queued one and
    // from a closed one (`tcp_poll`). So the one without the others needs no more questions.
    if news.is_writable() && !news.is_error() && !news.is_write_closed() {
        return Ok(stream);
    }
    match SockRef::from(&stream).take_error()? {
        Some(error) => Err(error),
        None => unless_refused(stream),
    }
}

/// The stream, unless an ICMP message has said that there is none.
fn unless_refused<S: AsFd>(stream: S) -> io::Result<S> {
    match SockRef::from(&stream).peer_addr() {
        // Without an error in the queue it was connected, and has been reset since.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {
            sys::queued_error(stream.as_fd()).map_or(Ok(stream), Err)
        }
        _ => Ok(stream),
    }
}

type Way = fn(&BoundPorts, &Socket, SocketAddr) -> io::Result<()>;

/// The port is connect()'s only choice, and the address is bound.
fn choose(bound: &BoundPorts, socket: &Socket, client: SocketAddr) -> io::Result<()> {
    choose_port(bound, socket, client)?;
    sys::choose_late(socket.as_fd())?;
    socket.bind(&SocketAddr::new(client.ip(), 0).into())
}

/// The port is connect()'s only choice. Not where an application has bound it explicitly, nor for ports that the
/// kernel does not choose by itself.
fn choose_port(bound: &BoundPorts, socket: &Socket, client: SocketAddr) -> io::Result<()> {
    if !bound.chosen_by_kernel.contains(&client.port()) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    sys::choose_port(socket.as_fd(), client.port())
}

/// Fails where the port is taken, is a privileged one, or where the address is none of this host's.
fn bind(bound: &BoundPorts, socket: &Socket, client: SocketAddr) -> io::Result<()> {
    if !bound.take() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    socket.set_reuse_address(true)?;
    socket.bind(&client.into())
}

/// Ports that were taken by bind(): while such a connection lingers in TIME_WAIT, its port is of no use for any other
/// destination, so that a busy application would run out of ports.
#[derive(Debug)]
pub struct BoundPorts {
    chosen_by_kernel: RangeInclusive<u16>,
    /// In each minute.
    limit: u32,
    taken: Cell<(u32, Option<Instant>)>,
}

/// Ports bound within one TIME_WAIT, of all shards: a small part of the some 28,000 that the kernel chooses from.
const BOUND: u32 = 4096;
/// How long a port rests that was used, towards the same destination.
pub const TIME_WAIT: Duration = Duration::from_secs(60);
/// `net.ipv4.ip_local_port_range`, unless somebody has changed it.
const KERNELS_CHOICE: RangeInclusive<u16> = 32768..=60999;

impl BoundPorts {
    /// For one of so many shards.
    pub fn new(shards: usize) -> Self {
        Self {
            chosen_by_kernel: kernels_choice().unwrap_or(KERNELS_CHOICE),
            limit: (BOUND / u32::try_from(shards.max(1)).unwrap_or(BOUND)).max(1),
            taken: Cell::default(),
        }
    }

    fn take(&self) -> bool {
        let now = Instant::now();
        let (mut taken, since) = self.taken.get();
        let since = since.filter(|since| now - *since < TIME_WAIT);
        if since.is_none() {
            taken = 0;
        }
        if taken >= self.limit {
            return false;
        }
        self.taken.set((taken + 1, since.or(Some(now))));
        true
    }
}

fn kernels_choice() -> Option<RangeInclusive<u16>> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ends = text.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some(first..=last),
        _ => None,
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}

/// A connection that will carry a tunnel.
pub(super) async fn dial_tunnel(
    addr: SocketAddr,
    mark: &Mark,
    device: Option<u32>,
    limit: Duration,
) -> Result<TcpStream, Error> {
    let from = From {
        device,
        ..From::default()
    };
    let (stream, _) = dial(addr, &**mark, from, limit).await?;
    let tuned = || {
        let stream = TcpStream::from_std(stream.into_inner())?;
        stream.set_nodelay(true)?;
        tune_tunnel(&stream)?;
        Ok(stream)
    };
    tuned().map_err(|e: io::Error| Error::Connect {
        addr,
        source: Rc::new(e),
    })
}

/// Options of a socket that carries a tunnel, dialled or accepted.
pub(super) fn tune_tunnel(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new();
    socket.set_tcp_keepalive(&keepalive.with_time(leg::KEEPALIVE).with_interval(leg::KEEPALIVE))?;
    socket.set_tcp_user_timeout(Some(TUNNEL_USER_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(TUNNEL_NOTSENT_LOWAT)
}

fn socket_for(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(addr),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    // The urgent byte would not be among the others, and be lost.
    socket.set_out_of_band_inline(true)?;
    Ok(socket)
}

async fn finish<T>(
    addr: SocketAddr,
    limit: Duration,
    connecting: impl Future<Output = io::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, connecting).await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err(source)) => Err(Error::Connect {
            addr,
            source: Rc::new(source),
        }),
        Err(_) => Err(Error::TimedOut {
            addr,
            what: Step::Connect,
            after: limit,
        }),
    }
}

#[cfg(test)]
mod dial_facts;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_only_so_many_bound_ports() {
        let ports = BoundPorts::new(64);
        assert_eq!((0..100).filter(|_| ports.take()).count(), 64);
        let long_ago = Instant::now().checked_sub(TIME_WAIT);
        ports.taken.set((64, long_ago));
        assert!(ports.take(), "a minute later");
    }
}
