//! New connections, one after the other: connect, one exchange, close.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::MESSAGE;
use crate::samples::Samples;
use crate::slice::{Facts, Load, Span};

#[derive(Debug)]
pub(crate) struct Connect {
    to: SocketAddr,
    /// Of the whole: connect, exchange, close.
    samples: Samples,
    /// Of connect() alone.
    connects: Samples,
}

impl Connect {
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self {
            to,
            samples: Samples::new(),
            connects: Samples::new(),
        }
    }
}

impl Load for Connect {
    fn slice(&mut self, span: Span) -> Result<Facts> {
        self.samples.clear();
        self.connects.clear();
        let mut all_operations = 0;
        let mut begun = Instant::now();
        while begun < span.end {
            let stream = connect(self.to)?;
            let connected = Instant::now();
            drop(exchange(stream)?);
            let now = Instant::now();
            all_operations += 1;
            if span.counts(now) {
                self.samples.add(now - begun);
                self.connects.add(connected - begun);
            }
            begun = now;
        }
        Ok(Facts {
            seconds: span.seconds(),
            operations: self.samples.count(),
            all_operations,
            bytes: 0,
            latency_ns: self.samples.latency(),
            connect_ns: self.connects.latency(),
        })
    }
}

/// Gives the connection back, still open; to drop it is to close it.
pub(crate) fn exchange_once(to: SocketAddr) -> Result<TcpStream> {
    exchange(connect(to)?)
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect(to).with_context(|| format!("connect to {to}"))
}

fn exchange(mut stream: TcpStream) -> Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.write_all(&[b'?'; MESSAGE]).context("send a request")?;
    stream
        .read_exact(&mut [0; MESSAGE])
        .context("receive an answer")?;
    Ok(stream)
}
