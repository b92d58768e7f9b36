//! Round trips: a fixed number of connections, one exchange in flight on each.
//!
//! One connection takes the same path through epoll as many, as an ordinary program's does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::MESSAGE;
use crate::samples::Samples;
use crate::slice::{Facts, Load, Span};

#[derive(Debug)]
pub(crate) struct Rr {
    epoll: Epoll,
    connections: Vec<Connection>,
    samples: Samples,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    sent_at: Instant,
    /// Of the answer.
    received: usize,
}

impl Rr {
    pub(crate) fn connect(to: SocketAddr, count: usize) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let connect = |n: usize| -> Result<Connection> {
            let stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
            stream.set_nodelay(true)?;
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, n as u64))?;
            Ok(Connection {
                stream,
                sent_at: Instant::now(),
                received: 0,
            })
        };
        let connections = (0..count).map(connect).collect::<Result<_>>()?;
        Ok(Self {
            epoll,
            connections,
            samples: Samples::new(),
        })
    }
}

impl Load for Rr {
    fn slice(&mut self, span: Span) -> Result<Facts> {
        self.samples.clear();
        for connection in &mut self.connections {
            connection.send()?;
        }
        let mut in_flight = self.connections.len();
        let mut all_operations = 0;
        let mut events = [EpollEvent::empty(); 64];
        while in_flight > 0 {
            let ready = self.epoll.wait(&mut events, EpollTimeout::NONE)?;
            for event in &events[..ready] {
                let connection = &mut self.connections[event.data() as usize];
                if !connection.receive()? {
                    continue;
                }
                let now = Instant::now();
                all_operations += 1;
                if span.counts(now) {
                    self.samples.add(now - connection.sent_at);
                }
                if now < span.end {
                    connection.send()?;
                } else {
                    in_flight -= 1;
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
    fn send(&mut self) -> Result<()> {
        self.received = 0;
        self.sent_at = Instant::now();
        self.stream.write_all(&[b'?'; MESSAGE]).context("send a request")
    }

    /// Whether the answer is complete. Called when there is something to read.
    fn receive(&mut self) -> Result<bool> {
        let mut buffer = [0; MESSAGE];
        let bytes = self
            .stream
            .read(&mut buffer[self.received..])
            .context("receive an answer")?;
        ensure!(bytes > 0, "the server closed the connection");
        self.received += bytes;
        Ok(self.received == MESSAGE)
    }
}
