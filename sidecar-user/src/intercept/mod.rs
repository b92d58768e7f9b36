//! HOW DID IT GET HERE? Listeners, original destinations, and the answers to SYNs that the kernel holds. Decides
//! nothing about where a connection goes.

pub mod packet;
mod raw;
mod sys;

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::model::{ClientAddr, OriginalDst, leg};

pub use raw::RawSockets;

/// The ports that the kernel redirects to, and the port that mesh peers dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub outbound_port: u16,
    pub inbound_port: u16,
    pub hbone_port: u16,
}

/// A burst of connects waits here while the shard is busy. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on port {port} for {what}; is another proxy running in this network namespace?")]
    Listen {
        what: &'static str,
        port: u16,
        #[source]
        source: io::Error,
    },
}

/// One shard's listeners. Each shard binds the same ports; the kernel spreads connections over them.
#[derive(Debug)]
pub struct Listeners {
    pub outbound: TcpListener,
    pub inbound: TcpListener,
    pub hbone: TcpListener,
}

impl Listeners {
    pub fn bind(config: &Config) -> Result<Self, Error> {
        let bind = |what, port, loopback| {
            let any = Ipv6Addr::UNSPECIFIED;
            listen((any, port).into(), loopback).map_err(|source| Error::Listen { what, port, source })
        };
        Ok(Self {
            outbound: bind("outbound connections", config.outbound_port, true)?,
            inbound: bind("inbound plaintext", config.inbound_port, false)?,
            hbone: bind("HBONE", config.hbone_port, false)?,
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

/// Takes the filter off an accepted connection, which has inherited it from the listener: it has done its work with
/// the SYN, and would be asked about every packet.
pub fn unfilter(stream: impl AsFd) -> io::Result<()> {
    sys::detach_filter(stream.as_fd())
}

/// Dual-stack, shared between shards. Options are set on the listener: accepted sockets inherit them on Linux,
/// so a connection pays no system call for them.
fn listen(address: SocketAddr, loopback: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(leg::NOTSENT_LOWAT)?;
    if loopback {
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
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::TcpStream;

    #[test]
    fn a_direct_dial_has_no_original_destination() {
        let listener = listen((Ipv6Addr::UNSPECIFIED, 0).into(), true).unwrap();
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
