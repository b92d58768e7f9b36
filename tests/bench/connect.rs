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
    samples: Samples,
}

impl Connect {
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self {
            to,
            samples: Samples::new(),
        }
    }
}

impl Load for Connect {
    fn slice(&mut self, span: Span) -> Result<Facts> {
        self.samples.clear();
        let mut begun = Instant::now();
        while begun < span.end {
            exchange_once(self.to)?;
            let now = Instant::now();
            if span.counts(now) {
                self.samples.add(now - begun);
            }
            begun = now;
        }
        Ok(Facts {
            seconds: span.seconds(),
            operations: self.samples.count(),
            bytes: 0,
            latency_ns: self.samples.latency(),
        })
    }
}

/// Gives the connection back, still open; to drop it is to close it.
pub(crate) fn exchange_once(to: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[b'?'; MESSAGE]).context("send a request")?;
    stream
        .read_exact(&mut [0; MESSAGE])
        .context("receive an answer")?;
    Ok(stream)
}
