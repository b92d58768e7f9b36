//! New connections, many at once: each connects, exchanges once or is refused, closes, and begins again. Whether
//! they are meant to be refused is said beforehand; any other end is an error, so that a fast failure is no success.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};

use crate::MESSAGE;
use crate::samples::Samples;
use crate::slice::{Facts, Load, Span};

#[derive(Debug)]
pub(crate) struct Crowd {
    to: SocketAddr,
    refused: bool,
    epoll: Epoll,
    /// Closed between slices.
    connections: Vec<Option<Connection>>,
    samples: Samples,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    begun: Instant,
    /// What connect() said at once; the socket's own error is gone then, but epoll reports it as hung up.
    failed: Option<io::Error>,
    /// Of the answer, once a request has been sent.
    received: Option<usize>,
}

impl Crowd {
    pub(crate) fn new(to: SocketAddr, count: usize, refused: bool) -> Result<Self> {
        Ok(Self {
            to,
            refused,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            connections: (0..count).map(|_| None).collect(),
            samples: Samples::new(),
        })
    }

    /// Begins the next connection of this place. Its answer is always an event, even where connect() gives it at once.
    fn begin(&mut self, place: usize) -> Result<()> {
        let socket = Socket::new(
            Domain::for_address(self.to),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_tcp_nodelay(true)?;
        let begun = Instant::now();
        let failed = match socket.connect(&self.to.into()) {
            Ok(()) => None,
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => None,
            Err(error) => Some(error),
        };
        let stream = TcpStream::from(socket);
        self.epoll
            .add(&stream, EpollEvent::new(EpollFlags::EPOLLOUT, place as u64))?;
        self.connections[place] = Some(Connection {
            stream,
            begun,
            failed,
            received: None,
        });
        Ok(())
    }

    /// When it began, if it has come to its end.
    fn advance(&mut self, place: usize) -> Result<Option<Instant>> {
        let connection = self.connections[place].as_mut().context("nothing is open here")?;
        let is_done = match connection.received {
            None => connection.connected(self.refused)?,
            Some(received) => connection.receive(received)?,
        };
        if is_done {
            let begun = connection.begun;
            self.connections[place] = None;
            return Ok(Some(begun));
        }
        let stream = &self.connections[place].as_ref().context("still open")?.stream;
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN, place as u64);
        self.epoll.modify(stream, &mut event)?;
        Ok(None)
    }
}

impl Load for Crowd {
    fn slice(&mut self, span: Span) -> Result<Facts> {
        self.samples.clear();
        let mut open = self.connections.len();
        let mut all_operations = 0;
        for place in 0..open {
            self.begin(place)?;
        }
        let mut events = [EpollEvent::empty(); 64];
        while open > 0 {
            let ready = self.epoll.wait(&mut events, EpollTimeout::NONE)?;
            for event in &events[..ready] {
                let place = event.data() as usize;
                let Some(begun) = self.advance(place)? else {
                    continue;
                };
                let now = Instant::now();
                all_operations += 1;
                if span.counts(now) {
                    self.samples.add(now - begun);
                }
                if now < span.end {
                    self.begin(place)?;
                } else {
                    open -= 1;
                }
            }
        }
        Ok(Facts {
            seconds: span.seconds(),
            operations: self.samples.count(),
            all_operations,
            bytes: 0,
            latency_ns: self.samples.latency(),
            connect_ns: None,
        })
    }
}

impl Connection {
    /// connect() has an answer: sends a request, or is done.
    fn connected(&mut self, refused: bool) -> Result<bool> {
        let failed = match self.failed.take() {
            Some(error) => Some(error),
            None => self.stream.take_error()?,
        };
        match (failed, refused) {
            (Some(error), true) if error.kind() == ErrorKind::ConnectionRefused => return Ok(true),
            (Some(error), _) => return Err(error).context("connect"),
            (None, true) => bail!("connect succeeded where nobody listens"),
            (None, false) => {}
        }
        self.stream
            .write_all(&[b'?'; MESSAGE])
            .context("send a request")?;
        self.received = Some(0);
        Ok(false)
    }

    /// Whether the answer is complete. Called when there is something to read.
    fn receive(&mut self, received: usize) -> Result<bool> {
        let mut buffer = [0; MESSAGE];
        let bytes = self
            .stream
            .read(&mut buffer[received..])
            .context("receive an answer")?;
        ensure!(bytes > 0, "the server closed the connection");
        self.received = Some(received + bytes);
        Ok(received + bytes == MESSAGE)
    }
}
