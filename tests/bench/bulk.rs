//! Bulk: one connection, as many 256 KB writes as it takes.
//!
//! What counts is what has arrived, because buffers on the way hold megabytes: the server tells its count every
//! [`REPORT_EVERY`] bytes, in eight bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::slice::{Facts, Load, Span};

/// Often enough for a slice, and too seldom to cost anything.
pub(crate) const REPORT_EVERY: u64 = 1 << 20;

const BLOCK: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Bulk {
    stream: TcpStream,
    block: Vec<u8>,
    sent: u64,
    arrived: u64,
    /// The begin of a report that has not come whole.
    partial: Vec<u8>,
}

impl Bulk {
    pub(crate) fn connect(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            block: vec![b'.'; BLOCK],
            sent: 0,
            arrived: 0,
            partial: Vec::new(),
        })
    }

    /// Waits until there is a report to read, or room to write where that is wanted.
    fn wait(&self, writable: bool) -> Result<()> {
        let mut flags = PollFlags::POLLIN;
        flags.set(PollFlags::POLLOUT, writable);
        poll(&mut [PollFd::new(self.stream.as_fd(), flags)], PollTimeout::NONE)?;
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        if let Some(bytes) = done(self.stream.write(&self.block)).context("send")? {
            self.sent += bytes as u64;
        }
        Ok(())
    }

    /// Whether it has learnt something new.
    fn read_reports(&mut self) -> Result<bool> {
        let mut buffer = [0; 1024];
        let Some(bytes) = done(self.stream.read(&mut buffer)).context("receive a report")? else {
            return Ok(false);
        };
        ensure!(bytes > 0, "the server closed the connection");
        self.partial.extend_from_slice(&buffer[..bytes]);
        let (whole, rest) = self.partial.as_chunks();
        let Some(last) = whole.last() else {
            return Ok(false);
        };
        self.arrived = u64::from_le_bytes(*last);
        self.partial = rest.to_vec();
        Ok(true)
    }
}

impl Load for Bulk {
    fn slice(&mut self, span: Span) -> Result<Facts> {
        let mut first = None;
        let mut last = None;
        loop {
            let now = Instant::now();
            let sending = now < span.end;
            if !sending && self.sent - self.arrived < REPORT_EVERY {
                break;
            }
            if sending {
                self.write()?;
            }
            if !self.read_reports()? {
                self.wait(sending)?;
                continue;
            }
            let now = Instant::now();
            if span.counts(now) {
                first.get_or_insert((now, self.arrived));
                last = Some((now, self.arrived));
            }
        }
        let (first, last) = first
            .zip(last)
            .filter(|(first, last)| first != last)
            .context("nothing arrived while it counted; make the slice longer")?;
        Ok(Facts {
            seconds: (last.0 - first.0).as_secs_f64(),
            operations: 0,
            all_operations: 0,
            bytes: last.1 - first.1,
            latency_ns: None,
            connect_ns: None,
        })
    }
}

/// Nothing if it would have to wait.
fn done(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
