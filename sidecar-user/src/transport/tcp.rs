//! Dialling plain TCP, with the socket flagged as our own before it connects.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use super::{Error, Step};

/// Flags a socket so that the connect hook leaves it alone. Without it a dial would come back to ourselves.
pub type Mark = Rc<dyn Fn(BorrowedFd<'_>) -> io::Result<()>>;

const KEEPALIVE: Duration = Duration::from_secs(10);

/// On tunnels only: they are always drained, so unacknowledged data means a dead peer. On an application's socket
/// it would kill a peer that is alive and merely does not read (wire.md 1.10).
const TUNNEL_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bounds what waits unsent in the kernel for a tunnel, where a later urgent frame would queue behind it.
const TUNNEL_NOTSENT_LOWAT: u32 = 128 * 1024;

/// A connection to an application or to a host outside the mesh, out by `device` if there is one.
pub async fn dial(
    addr: SocketAddr,
    mark: &Mark,
    device: Option<u32>,
    limit: Duration,
) -> Result<TcpStream, Error> {
    let connecting = async {
        let socket = socket_for(addr)?;
        if let Some(device) = device {
            let name = nix::net::if_::if_indextoname(device)?;
            SockRef::from(&socket).bind_device(Some(name.to_bytes()))?;
        }
        mark(socket.as_fd())?;
        socket.connect(addr).await
    };
    finish(addr, limit, connecting).await
}

/// A connection that will carry a tunnel.
pub(super) async fn dial_tunnel(
    addr: SocketAddr,
    mark: &Mark,
    device: Option<u32>,
    limit: Duration,
) -> Result<TcpStream, Error> {
    let stream = dial(addr, mark, device, limit).await?;
    tune_tunnel(&stream).map_err(|e| Error::Connect {
        addr,
        source: Rc::new(e),
    })?;
    Ok(stream)
}

/// Options of a socket that carries a tunnel, dialled or accepted.
pub(super) fn tune_tunnel(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(TUNNEL_USER_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(TUNNEL_NOTSENT_LOWAT)
}

fn socket_for(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_nodelay(true)?;
    let options = SockRef::from(&socket);
    options.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    // The urgent byte would not be among the others, and be lost.
    options.set_out_of_band_inline(true)?;
    Ok(socket)
}

async fn finish(
    addr: SocketAddr,
    limit: Duration,
    connecting: impl Future<Output = io::Result<TcpStream>>,
) -> Result<TcpStream, Error> {
    match tokio::time::timeout(limit, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
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
