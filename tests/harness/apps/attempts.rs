//! Connections at a steady rate, each with its outcome (`programs/attempts.py`).

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

use super::script::Script;
use crate::pod::Pod;
use crate::process::Process;
use crate::wait;

/// A program that runs until it is stopped.
#[derive(Debug)]
pub struct Attempts {
    process: Process,
    stop: PathBuf,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub begun: SystemTime,
    pub ended: SystemTime,
    pub server: SocketAddr,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Served,
    /// connect() has failed, with this errno.
    Refused(String),
    /// connect() has not failed, and nothing came back.
    Cut(String),
}

impl Attempts {
    /// So many a second, to the servers in turn, each with this text.
    pub fn start(pod: &Pod, rate: u32, text: &str, servers: &[SocketAddr]) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let stop = pod.scratch().join(format!("attempts-{number}.stop"));
        let mut command = Script::Attempts.command(pod)?;
        command.arg(rate.to_string()).arg(&stop).arg(text);
        for server in servers {
            command.args([server.ip().to_string(), server.port().to_string()]);
        }
        let process = pod.spawn(command)?;
        Ok(Self { process, stop })
    }

    /// Those that have ended, in that order.
    pub fn so_far(&self) -> Vec<Attempt> {
        Attempt::all(&self.process.log())
    }

    /// Waits until one that has begun after this moment was served, at each of these servers.
    pub fn until_served(&mut self, after: SystemTime, servers: &[SocketAddr]) -> Result<()> {
        wait::until("connections are served", wait::SOON, || {
            let all = self.so_far();
            let is_served = |server: &SocketAddr| {
                let mut of_it = all.iter().filter(|one| one.server == *server);
                of_it.any(|one| one.begun > after && one.outcome == Outcome::Served)
            };
            servers.iter().all(is_served)
        })
    }

    pub fn stop(mut self) -> Result<Vec<Attempt>> {
        fs::write(&self.stop, "")?;
        let status = self.process.wait(wait::SOON)?;
        ensure!(status.success(), "{status}: {}", self.process.last_words());
        let lines = self.process.log().lines().count();
        let all = self.so_far();
        ensure!(lines == all.len(), "{}", self.process.last_words());
        Ok(all)
    }
}

impl Attempt {
    /// Of what the program has printed.
    pub fn all(log: &str) -> Vec<Self> {
        // The last line may still be written.
        let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().filter_map(read).collect()
    }
}

fn read(line: &str) -> Option<Attempt> {
    let mut words = line.splitn(5, ' ');
    let mut time = || Some(UNIX_EPOCH + Duration::try_from_secs_f64(words.next()?.parse().ok()?).ok()?);
    let (begun, ended) = (time()?, time()?);
    let server = SocketAddr::new(words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let outcome = match words.next()?.split_once(' ') {
        Some(("connect", error)) => Outcome::Refused(error.to_owned()),
        Some((_, error)) => Outcome::Cut(error.to_owned()),
        None => Outcome::Served,
    };
    Some(Attempt {
        begun,
        ended,
        server,
        outcome,
    })
}
