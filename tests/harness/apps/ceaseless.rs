//! Connections without end, of which none may fail (`programs/ceaseless.py`).

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use super::script::Script;
use crate::pod::Pod;
use crate::process::Process;
use crate::wait;

/// How a destination has to answer.
#[derive(Clone, Copy, Debug)]
pub enum Server {
    /// An echo service: connections to it are served, and some kept open.
    Open(SocketAddr),
    /// Nobody listens: connections to it are refused.
    Closed(SocketAddr),
}

/// A program that runs until it is stopped.
#[derive(Debug)]
pub struct Ceaseless {
    process: Process,
    stop: PathBuf,
}

/// What it has done.
#[derive(Debug)]
pub struct Done {
    pub connections: u64,
    /// On those that it kept open.
    pub exchanges: u64,
    /// Each kind with its number.
    pub failures: Vec<String>,
}

impl Ceaseless {
    /// So many new connections a second, over all servers, and so many kept open to each. Returns once these are open.
    pub fn start(pod: &Pod, rate: u32, open: u32, servers: &[Server]) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let stop = pod.scratch().join(format!("ceaseless-{number}.stop"));
        let mut command = Script::Ceaseless.command(pod)?;
        command.args([rate, open].map(|n| n.to_string())).arg(&stop);
        for server in servers {
            let (kind, at) = match server {
                Server::Open(at) => ("open", at),
                Server::Closed(at) => ("closed", at),
            };
            command.args([kind, &at.ip().to_string(), &at.port().to_string()]);
        }
        let mut process = pod.spawn(command)?;
        process.until("has opened what it keeps", |process| {
            process.log().lines().any(|line| line == "begun")
        })?;
        Ok(Self { process, stop })
    }

    /// New connections that have ended so far.
    pub fn so_far(&self) -> u64 {
        let log = self.process.log();
        let last = log.lines().rev().find_map(|line| line.strip_prefix("so far "));
        last.and_then(|count| count.parse().ok()).unwrap_or_default()
    }

    /// Waits until so many more have ended.
    pub fn until_more(&mut self, more: u64) -> Result<()> {
        let goal = self.so_far() + more;
        wait::until("connections go on", wait::SOON, || self.so_far() >= goal)
    }

    pub fn stop(mut self) -> Result<Done> {
        fs::write(&self.stop, "")?;
        self.process.wait(wait::SOON)?;
        let log = self.process.log();
        let lines = || log.lines();
        let done = lines().find_map(|line| line.strip_prefix("done "));
        let done = done.with_context(|| format!("ceaseless.py did not end in order: {log}"))?;
        let numbers: Vec<u64> = done.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        ensure!(numbers.len() == 2, "{done}");
        let failures = lines().filter_map(|line| line.strip_prefix("failed "));
        Ok(Done {
            connections: numbers[0],
            exchanges: numbers[1],
            failures: failures.map(Into::into).collect(),
        })
    }
}
