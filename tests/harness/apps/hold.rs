//! Programs that do not do their part: clients and servers that do not read, connects that are given up
//! (`programs/hold.py`).

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::script::Script;
use crate::pod::Pod;
use crate::process::Process;
use crate::wait;

/// Sends to every client without end.
pub fn fire(pod: &Pod, port: u16) -> Result<Process> {
    serve(pod, port, "fire")
}

/// Accepts, and never reads.
pub fn sink(pod: &Pod, port: u16) -> Result<Process> {
    serve(pod, port, "sink")
}

/// Reads all that its clients send.
pub fn drain(pod: &Pod, port: u16) -> Result<Process> {
    serve(pod, port, "drain")
}

/// A client that sends without end, until it is dropped.
pub fn stream(pod: &Pod, server: SocketAddr) -> Result<Process> {
    let mut command = Script::Hold.command(pod)?;
    command.args(["stream", &server.ip().to_string(), &server.port().to_string()]);
    pod.spawn(command)
}

fn serve(pod: &Pod, port: u16, what: &str) -> Result<Process> {
    let mut command = Script::Hold.command(pod)?;
    command.args(["serve", &port.to_string(), what]);
    pod.spawn(command)?.until_listening(port)
}

/// So many connects at once, given up after so long, again and again. Returns when the last ones are.
pub fn abandon(pod: &Pod, server: SocketAddr, count: usize, times: usize, after: Duration) -> Result<()> {
    let mut process = pod.spawn(abandoning(pod, server, count, times, after)?)?;
    let status = process.wait(Duration::from_secs(60))?;
    anyhow::ensure!(status.success(), "{status}\n{}", process.log());
    Ok(())
}

/// The same as a command, for whoever wants to kill it meanwhile.
pub fn abandoning(
    pod: &Pod,
    server: SocketAddr,
    count: usize,
    times: usize,
    after: Duration,
) -> Result<std::process::Command> {
    let mut command = Script::Hold.command(pod)?;
    command
        .args(["abandon", &server.ip().to_string(), &server.port().to_string()])
        .args([count, times].map(|n| n.to_string()))
        .arg(after.as_millis().to_string());
    Ok(command)
}

/// Connections on which nothing moves any more.
#[derive(Debug)]
pub struct Stuck {
    process: Process,
    stop: PathBuf,
    moved: u64,
}

impl Stuck {
    /// So many clients of which each reads so much and then no more.
    pub fn readers(pod: &Pod, server: SocketAddr, count: usize, bytes: usize) -> Result<Self> {
        Self::start(pod, "read", server, count, bytes)
    }

    /// So many clients that write pieces of this size until nobody takes them.
    pub fn writers(pod: &Pod, server: SocketAddr, count: usize, size: usize) -> Result<Self> {
        Self::start(pod, "write", server, count, size)
    }

    fn start(pod: &Pod, what: &str, server: SocketAddr, count: usize, bytes: usize) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let stop = pod.scratch().join(format!("hold-{number}.stop"));
        let mut command = Script::Hold.command(pod)?;
        command
            .args([what, &server.ip().to_string(), &server.port().to_string()])
            .args([count, bytes].map(|n| n.to_string()))
            .arg(&stop);
        let mut process = pod.spawn(command)?;
        let held = format!("held {count} ");
        let moved = process.until_some("holds its connections", |process| {
            let log = process.log();
            let line = log.lines().find_map(|line| line.strip_prefix(&*held))?;
            line.trim().parse().ok()
        })?;
        Ok(Self { process, stop, moved })
    }

    /// Bytes that the program has sent or received.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Closes all, and gives how many were still whole.
    pub fn close(mut self) -> Result<usize> {
        fs::write(&self.stop, "")?;
        self.process.wait(wait::SOON)?;
        let log = self.process.log();
        let alive = log.lines().find_map(|line| line.strip_prefix("alive "));
        Ok(alive.context("hold.py did not end in order")?.parse()?)
    }
}
