//! What one half of a case has at hand: its facts, the other half, and sockets of the case's family.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::case::Family;
use crate::facts::{Facts, errno};
use crate::peer::Peer;
use crate::watch::{self, Events};
use crate::world::World;

pub(crate) struct Half {
    pub(crate) family: Family,
    pub(crate) facts: Facts,
    pub(crate) peer: Peer,
    pub(crate) world: World,
    pub(crate) patience: Duration,
    /// Where the server listens, written in the case's family.
    pub(crate) at: SocketAddr,
    /// The server's; the client has none.
    pub(crate) listener: Option<Socket>,
}

impl Half {
    /// A TCP socket that gives up after the patience of the run, so that a broken path shows and does not hang.
    pub(crate) fn socket(&self) -> io::Result<Socket> {
        self.socket_of(Protocol::TCP)
    }

    pub(crate) fn socket_of(&self, protocol: Protocol) -> io::Result<Socket> {
        let socket = Socket::new(self.domain(), Type::STREAM, Some(protocol))?;
        self.impatient(&socket)?;
        Ok(socket)
    }

    pub(crate) fn domain(&self) -> Domain {
        match self.family {
            Family::V4 => Domain::IPV4,
            Family::V6 | Family::Mapped => Domain::IPV6,
        }
    }

    pub(crate) fn impatient(&self, socket: &Socket) -> io::Result<()> {
        socket.set_read_timeout(Some(self.patience))?;
        // Not shorter than connect() may take: it ends by this, too.
        socket.set_write_timeout(Some(self.patience.max(Duration::from_secs(20))))
    }

    /// A connection to the server.
    pub(crate) fn dial(&mut self) -> Result<Socket> {
        let socket = self.socket()?;
        self.connect(&socket, self.at)?;
        Ok(socket)
    }

    /// Connects, and remembers the port that it connects from.
    pub(crate) fn connect(&mut self, socket: &Socket, at: SocketAddr) -> Result<()> {
        socket
            .connect(&at.into())
            .map_err(|error| anyhow!("connect: {}", errno(&error)))?;
        self.own_port(socket, "client-port")
    }

    pub(crate) fn own_port(&mut self, socket: &Socket, name: &str) -> Result<()> {
        if let Some(own) = socket.local_addr()?.as_socket() {
            self.facts.port(own.port(), name);
        }
        Ok(())
    }

    /// The next connection to the server's listener.
    pub(crate) fn accept(&mut self) -> Result<Socket> {
        self.accept_named().map(|(socket, _)| socket)
    }

    /// The next connection, and the address that accept() gave with it.
    pub(crate) fn accept_named(&mut self) -> Result<(Socket, SockAddr)> {
        let listener = self.listener.take().context("only the server has a listener")?;
        let accepted = self.accept_from(&listener);
        self.listener = Some(listener);
        accepted
    }

    /// The next connection to a listener. Whether the client's half has ended already does not matter: a connection
    /// may outlive it on its way.
    pub(crate) fn accept_from(&mut self, listener: &Socket) -> Result<(Socket, SockAddr)> {
        if watch::wait(listener, Events::IN, self.patience)?.is_empty() {
            bail!("nobody came");
        }
        let (socket, from) = listener.accept()?;
        self.impatient(&socket)?;
        Ok((socket, from))
    }

    /// A listener of the case's family on any address of the pod.
    pub(crate) fn listen(&self, port: u16) -> Result<Socket> {
        let socket = self.socket_of(Protocol::TCP)?;
        self.bind_any(&socket, port)?;
        socket.listen(128)?;
        Ok(socket)
    }

    pub(crate) fn bind_any(&self, socket: &Socket, port: u16) -> io::Result<()> {
        socket.set_reuse_address(true)?;
        if self.family != Family::V4 {
            socket.set_only_v6(self.family == Family::V6)?;
        }
        socket.bind(&self.any(port).into())
    }

    pub(crate) fn any(&self, port: u16) -> SocketAddr {
        match self.family {
            Family::V4 => (Ipv4Addr::UNSPECIFIED, port).into(),
            Family::V6 | Family::Mapped => (Ipv6Addr::UNSPECIFIED, port).into(),
        }
    }

    /// Where the server says that it listens as well; the port gets a name.
    pub(crate) fn hear_of(&mut self, word: &str, name: &str) -> Result<SocketAddr> {
        let port = u16::try_from(self.peer.hear(word)?)?;
        self.facts.port(port, name);
        Ok(self.at_port(port))
    }

    /// The other half of [`Half::hear_of`].
    pub(crate) fn tell_of(&mut self, word: &str, listener: &Socket) -> Result<()> {
        let at = listener
            .local_addr()?
            .as_socket()
            .context("an internet address")?;
        self.peer.tell_number(word, at.port().into())
    }

    /// The same server, another port.
    pub(crate) fn at_port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.world.server(self.family), port)
    }
}

/// A port that no other case of this run uses, outside the range that the kernel chooses from. Of a port that the kernel
/// has chosen it may make another case's listener as soon as it is free, while one still asks whether it is closed.
pub(crate) fn fresh_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    NEXT.fetch_add(1, Relaxed)
}
