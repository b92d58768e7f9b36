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

/// Where a connection is to come from, as far as that can be had.
#[derive(Clone, Copy, Debug, Default)]
pub struct From {
    /// The interface that it goes out by.
    pub device: Option<u32>,
    /// The address and port that the other side is to see.
    pub client: Option<SocketAddr>,
}

/// A connection to an application or to a host outside the mesh.
///
/// A client's own port may be taken: by a socket that it has bound to this very address, or by an earlier connection
/// to the same server that still lingers. Then the kernel chooses another one, and `false` comes with the stream.
pub async fn dial(
    addr: SocketAddr,
    mark: impl Fn(BorrowedFd<'_>) -> io::Result<()>,
    from: From,
    limit: Duration,
) -> Result<(TcpStream, bool), Error> {
    let connecting = async {
        let marked = || -> io::Result<TcpSocket> {
            let socket = socket_for(addr)?;
            if let Some(device) = from.device {
                let name = nix::net::if_::if_indextoname(device)?;
                SockRef::from(&socket).bind_device(Some(name.to_bytes()))?;
            }
            mark(socket.as_fd())?;
            Ok(socket)
        };
        let socket = marked()?;
        let as_itself = match from.client {
            Some(client) => client.is_ipv4() == addr.is_ipv4() && bind(&socket, client).is_ok(),
            None => true,
        };
        match socket.connect(addr).await {
            Err(error) if as_itself && from.client.is_some() && is_taken(&error) => {
                Ok((marked()?.connect(addr).await?, false))
            }
            connected => Ok((connected?, as_itself)),
        }
    };
    finish(addr, limit, connecting).await
}

/// Fails where the port is taken, is a privileged one, or where the address is none of this host's.
fn bind(socket: &TcpSocket, client: SocketAddr) -> io::Result<()> {
    socket.set_reuseaddr(true)?;
    socket.bind(client)
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
    let from = From { device, client: None };
    let (stream, _) = dial(addr, &**mark, from, limit).await?;
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
