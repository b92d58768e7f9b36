//! How the proxy's own sockets stay out of its own way: a flag in the socket's storage, set before connect().
//!
//! Unforgeable (it takes the map's descriptor, or the secret of the control path) and tied to nothing but the socket: no uid, no mark. The same flag names
//! the client that an accepting application of this pod is to see, and the connect hook dials for it: where the client
//! cannot be shown there is no connection. Whether to believe that client is not asked here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use sidecar_ebpf::abi::{self, Role};
use sidecar_ebpf::addr::{Endpoint, Ip, Port};

use super::super::ip::{kernel_ip, user_ip};
use super::super::map::Map;
use super::app_ports::Doubts;
use super::control::Control;
use super::port_maps::PortMaps;
use super::settings::{Ownership, Switches};
use crate::model::Direction;

#[derive(Clone, Debug)]
pub struct Bypass {
    switches: Switches,
    marks: Marks,
    ports: PortMaps,
    doubts: Arc<Doubts>,
}

/// How a mark gets into the storage of a socket.
#[derive(Clone, Debug)]
pub(super) enum Marks {
    /// Its key is a descriptor of the socket.
    Map(Map<RawFd, abi::Bypass>),
    Control(Control),
}

impl Bypass {
    pub(super) fn new(switches: Switches, marks: Marks, ports: PortMaps, doubts: Arc<Doubts>) -> Self {
        Self {
            switches,
            marks,
            ports,
            doubts,
        }
    }

    /// Marks one of the proxy's own sockets. To be called before connect(), which is when it is looked at.
    pub fn mark(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.write(socket, &abi::Bypass::ON)
    }

    pub(super) fn ownership(&self) -> Ownership {
        self.switches.ownership()
    }

    /// As [`Self::mark`], for a socket that dials an application of this pod: accept() and getpeername() show it
    /// `client`, and not the proxy. To be connected to [`Self::door`]. Where the programs have no room for the client,
    /// connect() fails with EHOSTUNREACH.
    ///
    /// Refuses (ECONNREFUSED) where no program of the pod's cgroup listens: another would not be shown the client, but the
    /// proxy.
    pub fn present(
        &self,
        socket: BorrowedFd<'_>,
        client: SocketAddr,
        application: SocketAddr,
    ) -> io::Result<()> {
        if !self.is_served(application) {
            self.doubts.closed.notify_one();
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.dial_as(socket, client, application, Role::PRESENTED)
    }

    /// Whether a program that the hooks see listens, as far as is known: until the first look at all listeners nobody
    /// knows of those that were there before the hooks.
    fn is_served(&self, application: SocketAddr) -> bool {
        self.ports.is_served(application) || self.switches.current().app_ports == 0
    }

    /// An application has refused a connection. Where user space has found its listener, that one has ended: the programs
    /// did not see it.
    pub fn refused_by(&self, application: SocketAddr) {
        if self.ports.is_inherited(application) {
            self.doubts.ended.notify_one();
        }
    }

    /// The way to an application: port 0, in whose place the connect hook puts the application's. A socket that the hooks
    /// do not see is refused there (ECONNREFUSED).
    pub fn door(&self, application: SocketAddr) -> SocketAddr {
        SocketAddr::new(application.ip(), 0)
    }

    /// As [`Self::present`], for a connection to this process itself, of which the accepted end answers SO_ORIGINAL_DST,
    /// too.
    pub(super) fn probe(
        &self,
        socket: BorrowedFd<'_>,
        client: SocketAddr,
        own: SocketAddr,
    ) -> io::Result<()> {
        self.dial_as(socket, client, own, Role::PROBED)
    }

    /// For a connection to `nonce`, which is to arrive at the proxy's own listener of that direction.
    pub(super) fn probe_listener(
        &self,
        socket: BorrowedFd<'_>,
        nonce: SocketAddr,
        direction: Direction,
    ) -> io::Result<()> {
        let nonce = Endpoint {
            ip: kernel_ip(nonce.ip()),
            port: Port::new(nonce.port()),
        };
        let direction = match direction {
            Direction::Outbound => abi::Direction::OUTBOUND,
            Direction::Inbound => abi::Direction::INBOUND,
        };
        self.write(socket, &abi::Bypass::probing(nonce, direction))
    }

    fn dial_as(
        &self,
        socket: BorrowedFd<'_>,
        client: SocketAddr,
        to: SocketAddr,
        accepted: Role,
    ) -> io::Result<()> {
        let client = Endpoint {
            ip: kernel_ip(client.ip()),
            port: Port::new(client.port()),
        };
        let mark = abi::Bypass::presenting(client, Port::new(to.port()), accepted);
        self.write(socket, &mark)
    }

    fn write(&self, socket: BorrowedFd<'_>, mark: &abi::Bypass) -> io::Result<()> {
        match &self.marks {
            Marks::Map(map) => Ok(map.set(&socket.as_raw_fd(), mark)?),
            Marks::Control(control) => Ok(control.mark(socket, mark)?),
        }
    }

    /// One of many addresses of loopback to dial an application from that has no port left for the pod's own address.
    ///
    /// `None` where a program might be shown it, and take the client for one of its own host: where somebody listens
    /// that is no program of the pod's cgroup, which the hooks do not see. IPv6 has no such addresses.
    pub fn spare_source(&self, to: SocketAddr, number: u16) -> Option<IpAddr> {
        let hidden = to.is_ipv4() && self.ports.is_counted(to) && !self.ports.is_inherited(to);
        hidden.then(|| user_ip(Ip::spare_source(number)))
    }
}
