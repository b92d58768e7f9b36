//! HOW DID IT GET HERE? Listeners, original destinations, and the answers to SYNs that the kernel holds. Decides
//! nothing about where a connection goes.

pub mod packet;
mod raw;
mod sys;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::model::{ClientAddr, OriginalDst, leg};

pub use raw::RawSockets;

/// Where the proxy listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The port that mesh peers dial.
    pub hbone_port: u16,
}

/// A burst of connects waits here while the shard is busy. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on port {port} for HBONE; is another proxy running in this network namespace?")]
    Hbone {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error(
        "cannot listen at {at} for the connections that the kernel brings; bring the loopback interface up"
    )]
    Steered {
        at: IpAddr,
        #[source]
        source: io::Error,
    },
}

/// One shard's sockets, bound and closed to everybody.
///
/// The kernel redirects connections before the proxy can answer them truthfully: programs that an earlier proxy pinned
/// do it all the time. So the sockets listen last, once their filter is attached.
#[derive(Debug)]
pub struct Bound {
    /// Where nothing is steered there are none.
    steered: Option<Steered<Socket>>,
    hbone: Socket,
    hbone_port: u16,
}

/// One shard's listeners.
#[derive(Debug)]
pub struct Listeners {
    pub steered: Option<Steered<TcpListener>>,
    pub hbone: TcpListener,
}

/// What the kernel brings connections to, from whatever address and port they were dialled at. Bound to a port of its own,
/// which nobody shares: with SO_REUSEPORT the kernel would let any program of the same uid take part.
#[derive(Debug)]
pub struct Steered<S> {
    pub outbound: S,
    pub inbound: S,
}

impl Bound {
    /// For every shard, before any of them runs. `steered` is the address at which the kernel finds those that it brings
    /// connections to; without, all shards accept from the one HBONE port. That one may be `handed` over by another proxy.
    pub fn all(
        config: &Config,
        steered: Option<IpAddr>,
        shards: usize,
        handed: Option<TcpListener>,
    ) -> Result<Vec<Self>, Error> {
        let port = config.hbone_port;
        let hbone = |source| Error::Hbone { port, source };
        // First the port that only one proxy can have.
        let first = match handed {
            Some(listener) => Socket::from(listener),
            None => own_port(port).map_err(hbone)?,
        };
        let mut sockets = Vec::with_capacity(shards);
        for _ in 1..shards {
            sockets.push(match steered {
                Some(at) => bind_steered(at, For::Peers)?,
                None => first.try_clone().map_err(hbone)?,
            });
        }
        sockets.insert(0, first);
        sockets
            .into_iter()
            .map(|hbone| Self::one(hbone, port, steered))
            .collect()
    }

    fn one(hbone: Socket, hbone_port: u16, steered: Option<IpAddr>) -> Result<Self, Error> {
        let steered = steered.map(|at| {
            Ok(Steered {
                outbound: bind_steered(at, For::Pod)?,
                inbound: bind_steered(at, For::Outsiders)?,
            })
        });
        Ok(Self {
            steered: steered.transpose()?,
            hbone,
            hbone_port,
        })
    }

    /// The socket that redirected connections will arrive at.
    pub fn outbound(&self) -> Option<BorrowedFd<'_>> {
        self.steered.as_ref().map(|steered| steered.outbound.as_fd())
    }

    pub fn listen(self) -> Result<Listeners, Error> {
        let port = self.hbone_port;
        let hbone = listen(self.hbone).map_err(|source| Error::Hbone { port, source })?;
        let steered = self.steered.map(|steered| {
            Ok(Steered {
                outbound: listen_steered(steered.outbound)?,
                inbound: listen_steered(steered.inbound)?,
            })
        });
        Ok(Listeners {
            steered: steered.transpose()?,
            hbone,
        })
    }
}

/// Where the application wanted to go. `None`: somebody dialled the port without being redirected.
pub fn original_dst(stream: impl AsFd, client: ClientAddr) -> Option<OriginalDst> {
    sys::original_dst(stream.as_fd(), client.0.is_ipv4()).map(OriginalDst::new)
}

/// Completes when the application has given the connection up. Its FIN is no such thing: it may still want an answer.
pub async fn hung_up(app: &TcpStream) {
    if app.ready(Interest::ERROR).await.is_err() {
        std::future::pending().await
    }
}

/// A port that somebody dials.
fn own_port(port: u16) -> io::Result<Socket> {
    let socket = dual_stack(For::Peers)?;
    // Connections of an earlier proxy that rest in TIME_WAIT have it.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))))?;
    Ok(socket)
}

/// Whose connections a listener is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Pod,
    Outsiders,
    Peers,
}

fn bind_steered(at: IpAddr, whose: For) -> Result<Socket, Error> {
    let bind = || {
        let socket = dual_stack(whose)?;
        // v4-mapped: bound to an IPv6 address it would take no IPv4 connections.
        let at = match at {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        socket.bind(&SockAddr::from(SocketAddr::from((at, 0))))?;
        // After the choice of the port, which is therefore nobody else's. Accepted sockets inherit it, and have the ports that
        // were dialled: an application that sets the same can bind its port again while they are open.
        socket.set_reuse_address(true)?;
        // Or that sets this one only. Whoever has the same uid may now listen at the port, and is given nothing there:
        // `sk_lookup` names the listener, and not the port.
        socket.set_reuse_port(whose == For::Outsiders)?;
        Ok(socket)
    };
    bind().map_err(|source| Error::Steered { at, source })
}

fn listen_steered(socket: Socket) -> Result<TcpListener, Error> {
    let at = socket.local_addr().ok().and_then(|at| at.as_socket());
    let at = at.map_or(Ipv6Addr::UNSPECIFIED.into(), |at| at.ip());
    listen(socket).map_err(|source| Error::Steered { at, source })
}

fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Options are set on the listener: accepted sockets inherit them on Linux, so a connection pays no system call for them.
fn dual_stack(whose: For) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(leg::NOTSENT_LOWAT)?;
    if whose == For::Pod {
        socket.set_tcp_mss(leg::LOOPBACK_MSS)?;
        socket.set_recv_buffer_size(leg::LOOPBACK_RECEIVE)?;
    }
    // The urgent byte would not be among the others, and be lost.
    socket.set_out_of_band_inline(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(leg::KEEPALIVE)
            .with_interval(leg::KEEPALIVE),
    )?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::TcpStream;

    #[test]
    fn a_direct_dial_has_no_original_destination() {
        let listener = listen(own_port(0).unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "::1"] {
            let _client = TcpStream::connect((host, port)).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            assert_eq!(original_dst(&accepted, ClientAddr::new(peer)), None, "{host}");
            assert!(accepted.nodelay().unwrap(), "inherited from the listener");
            assert!(
                SockRef::from(&accepted).out_of_band_inline().unwrap(),
                "inherited from the listener"
            );
        }
    }
}
