//! The server of all loads: echoes on some ports, discards on another. One thread, one epoll.
//!
//! Its sockets block, which is sound for its own clients only: they read what they are sent.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};

use crate::bulk::REPORT_EVERY;

const BACKLOG: i32 = 4096;
const BUFFER: usize = 256 << 10;

#[derive(Debug)]
enum Open {
    Echo(TcpStream),
    Sink { stream: TcpStream, count: u64 },
}

pub(crate) fn run(echo: &[u16], sink: u16) -> Result<()> {
    let ports = echo.iter().chain([&sink]);
    let listeners = ports.map(|port| listen(*port)).collect::<Result<Vec<_>>>()?;
    let sink = listeners[echo.len()].as_raw_fd();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for listener in &listeners {
        epoll.add(listener, watch(listener))?;
    }
    // By descriptor, so that a wake-up finds its connection without a search.
    let mut open: Vec<Option<Open>> = Vec::new();
    let mut buffer = vec![0; BUFFER];
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..ready] {
            let fd = event.data() as usize;
            if let Some(listener) = listeners.iter().find(|l| l.as_raw_fd() as usize == fd) {
                let (stream, _) = listener.accept().context("accept a connection")?;
                stream.set_nodelay(true)?;
                epoll.add(&stream, watch(&stream))?;
                let fd = stream.as_raw_fd() as usize;
                if open.len() <= fd {
                    open.resize_with(fd + 1, || None);
                }
                open[fd] = Some(if listener.as_raw_fd() == sink {
                    Open::Sink { stream, count: 0 }
                } else {
                    Open::Echo(stream)
                });
            } else if let Some(connection) = &mut open[fd]
                && !connection.serve(&mut buffer)
            {
                open[fd] = None;
            }
        }
    }
}

impl Open {
    /// Whether it stays open. How a client goes is its own business.
    fn serve(&mut self, buffer: &mut [u8]) -> bool {
        match self {
            Self::Echo(stream) => match stream.read(buffer) {
                Ok(0) | Err(_) => false,
                Ok(bytes) => stream.write_all(&buffer[..bytes]).is_ok(),
            },
            Self::Sink { stream, count } => match stream.read(buffer) {
                Ok(0) | Err(_) => false,
                Ok(bytes) => {
                    let before = *count;
                    *count += bytes as u64;
                    before / REPORT_EVERY == *count / REPORT_EVERY
                        || stream.write_all(&count.to_le_bytes()).is_ok()
                }
            },
        }
    }
}

/// On both families.
fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket
        .bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())
        .with_context(|| format!("listen on port {port}"))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn watch(socket: &impl AsRawFd) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN, socket.as_raw_fd() as u64)
}
