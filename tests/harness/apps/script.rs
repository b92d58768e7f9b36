//! Small Python programs for behaviour that no common client shows: resets, half-closes, crowds, long conversations.
//! They use the plain socket calls of a program that knows nothing of a mesh.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::pod::Pod;
use crate::process::Process;
use crate::wait;

/// Debian's own, because its aiosmtpd is installed for it.
const PYTHON: &str = "/usr/bin/python3";

/// For all of a run's connections, also through a sidecar that is traced.
const ONE_BY_ONE: Duration = Duration::from_secs(60);

/// The programs in `programs/`; each explains itself at its top.
#[derive(Clone, Copy, Debug)]
pub enum Script {
    Dialogue,
    Connects,
    Crowd,
    Keep,
    Echo,
    Smtp,
    Load,
    Dials,
    Ticker,
    Hold,
    Strangers,
    Intruder,
    Ceaseless,
    Attempts,
    Crossing,
    OneByOne,
    Neighbour,
}

impl Script {
    pub fn command(self, pod: &Pod) -> Result<Command> {
        let (name, text) = match self {
            Self::Dialogue => ("dialogue.py", include_str!("../programs/dialogue.py")),
            Self::Connects => ("connects.py", include_str!("../programs/connects.py")),
            Self::Crowd => ("crowd.py", include_str!("../programs/crowd.py")),
            Self::Keep => ("keep.py", include_str!("../programs/keep.py")),
            Self::Echo => ("echo.py", include_str!("../programs/echo.py")),
            Self::Smtp => ("smtp.py", include_str!("../programs/smtp.py")),
            Self::Load => ("load.py", include_str!("../programs/load.py")),
            Self::Dials => ("dials.py", include_str!("../programs/dials.py")),
            Self::Ticker => ("ticker.py", include_str!("../programs/ticker.py")),
            Self::Hold => ("hold.py", include_str!("../programs/hold.py")),
            Self::Strangers => ("strangers.py", include_str!("../programs/strangers.py")),
            Self::Intruder => ("intruder.py", include_str!("../programs/intruder.py")),
            Self::Ceaseless => ("ceaseless.py", include_str!("../programs/ceaseless.py")),
            Self::Attempts => ("attempts.py", include_str!("../programs/attempts.py")),
            Self::Crossing => ("crossing.py", include_str!("../programs/crossing.py")),
            Self::OneByOne => ("one_by_one.py", include_str!("../programs/one_by_one.py")),
            Self::Neighbour => ("neighbour.py", include_str!("../programs/neighbour.py")),
        };
        let file = pod.scratch().join(name);
        // Once: an interpreter that was started before may still read it, and would take a file that is being written
        // for a shorter program, or for none.
        if !file.exists() {
            fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        }
        let mut command = pod.command(PYTHON);
        command.arg(file);
        Ok(command)
    }
}

/// What an eBPF program of another owner does to connects by IPv4, and whether it runs before those that are there
/// (`programs/neighbour.py`). `None`: this kernel cannot put it there. It is gone when the value is dropped.
pub fn neighbour(pod: &Pod, name: &str, does: &str, place: &str) -> Result<Option<Process>> {
    let mut command = Script::Neighbour.command(pod)?;
    command.arg(pod.cgroup()).args([name, does, place]);
    let mut process = pod.spawn(command)?;
    let attached = process.until_some("has attached, or cannot", |process| {
        let log = process.log();
        let said = |word| log.lines().any(|line| line == word);
        said("attached")
            .then_some(true)
            .or(said("unsupported").then_some(false))
    })?;
    Ok(attached.then_some(process))
}

pub fn echo(pod: &Pod, port: u16) -> Result<Process> {
    let mut command = Script::Echo.command(pod)?;
    command.arg(port.to_string());
    pod.spawn(command)?.until_listening(port)
}

/// So many connections to an echo server, one after the other, each for one exchange.
pub fn one_by_one(pod: &Pod, server: SocketAddr, count: usize) -> Result<()> {
    let mut command = Script::OneByOne.command(pod)?;
    command.args([
        server.ip().to_string(),
        server.port().to_string(),
        count.to_string(),
    ]);
    pod.run_within(command, ONE_BY_ONE)?.ok().map(drop)
}

/// One end of a connection that follows given steps (`programs/dialogue.py`), and what each step gave.
#[derive(Debug)]
pub struct Dialogue {
    process: Process,
}

impl Dialogue {
    /// Waits for one connection; returned when it listens.
    pub fn listen(pod: &Pod, port: u16, steps: &[&str]) -> Result<Self> {
        let mut command = Script::Dialogue.command(pod)?;
        command.arg("listen").arg(port.to_string()).args(steps);
        let process = pod.spawn(command)?.until_listening(port)?;
        Ok(Self { process })
    }

    pub fn connect(pod: &Pod, server: SocketAddr, steps: &[&str]) -> Result<Self> {
        let mut command = Script::Dialogue.command(pod)?;
        command
            .args(["connect", &server.ip().to_string(), &server.port().to_string()])
            .args(steps);
        Ok(Self {
            process: pod.spawn(command)?,
        })
    }

    /// Waits until it has ended; one line a step, `<step> <result>`.
    pub fn lines(mut self) -> Result<Vec<String>> {
        let status = self.process.wait(std::time::Duration::from_secs(120))?;
        ensure!(status.success(), "{status}: {}", self.process.last_words());
        Ok(self
            .process
            .log()
            .lines()
            .map(|line| line.trim_end().into())
            .collect())
    }

    /// Waits for the result of the first step of this name.
    pub fn result(&mut self, step: &str) -> Result<String> {
        let prefix = format!("{step} ");
        self.process
            .until_some(&format!("comes to the step {step}"), |process| {
                let log = process.log();
                // Only whole lines: the last one may still be written.
                let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
                Some(
                    whole
                        .lines()
                        .find_map(|line| line.strip_prefix(&prefix))?
                        .trim_end()
                        .to_owned(),
                )
            })
    }
}

/// Requests (or numbered lines) that go on in the background until stopped.
#[derive(Debug)]
pub struct Background {
    process: Process,
    stop: PathBuf,
    progress: PathBuf,
}

impl Background {
    /// One HTTP request after the other, each on a connection of its own.
    pub fn load(pod: &Pod, url: &str) -> Result<Self> {
        let mut command = Script::Load.command(pod)?;
        command.arg(url);
        Self::start(pod, command, "load")
    }

    /// Connects to all of these hosts, hundreds in a second, each answer a line.
    pub fn dials(pod: &Pod, hosts: &[IpAddr], port: u16) -> Result<Self> {
        let mut command = Script::Dials.command(pod)?;
        command
            .arg(port.to_string())
            .args(hosts.iter().map(IpAddr::to_string));
        Self::start(pod, command, "dials")
    }

    /// Numbered lines on one connection to an echo server.
    pub fn ticker(pod: &Pod, server: SocketAddr) -> Result<Self> {
        let mut command = Script::Ticker.command(pod)?;
        command.args([server.ip().to_string(), server.port().to_string()]);
        Self::start(pod, command, "ticker")
    }

    fn start(pod: &Pod, mut command: Command, name: &str) -> Result<Self> {
        let stop = pod.scratch().join(format!("{name}.stop"));
        let progress = pod.scratch().join(format!("{name}.progress"));
        let process = pod.spawn({
            command.arg(&stop).arg(&progress);
            command
        })?;
        Ok(Self {
            process,
            stop,
            progress,
        })
    }

    /// All that came so far: answers, or the number of lines.
    pub fn progress(&self) -> Vec<String> {
        fs::read_to_string(&self.progress)
            .unwrap_or_default()
            .lines()
            .map(Into::into)
            .collect()
    }

    /// Waits until the condition holds for what came.
    pub fn until(&mut self, what: &str, mut probe: impl FnMut(&[String]) -> bool) -> Result<()> {
        let progress = self.progress.clone();
        let read = move || -> Vec<String> {
            fs::read_to_string(&progress)
                .unwrap_or_default()
                .lines()
                .map(Into::into)
                .collect()
        };
        self.process.until(what, |_| probe(&read()))
    }

    /// Ends it in order and gives all that came; a bad end of the program is an error.
    pub fn stop(mut self) -> Result<Vec<String>> {
        fs::write(&self.stop, "")?;
        let status = self.process.wait(wait::SOON)?;
        anyhow::ensure!(status.success(), "{status}\n{}", self.process.log());
        Ok(self.progress())
    }
}

/// Connects under way (`programs/connects.py`).
#[derive(Debug)]
pub struct Connects {
    process: Process,
    stop: PathBuf,
}

impl Connects {
    /// That many at once to one address. They wait for answers until the file `stop` exists.
    pub fn start(pod: &Pod, server: SocketAddr, count: usize, stop: &std::path::Path) -> Result<Self> {
        let mut command = Script::Connects.command(pod)?;
        command
            .args([
                server.ip().to_string(),
                server.port().to_string(),
                count.to_string(),
            ])
            .arg(stop);
        Ok(Self {
            process: pod.spawn(command)?,
            stop: stop.into(),
        })
    }

    pub fn until_started(&mut self) -> Result<()> {
        self.process.until("has begun to connect", |process| {
            process.log().contains("started ")
        })
    }

    /// Waits until each has an answer, and gives how many had which.
    pub fn finish(mut self) -> Result<Vec<String>> {
        let status = self.process.wait(std::time::Duration::from_secs(120))?;
        ensure!(status.success(), "{status}: {}", self.process.last_words());
        Ok(self.process.log().lines().skip(1).map(Into::into).collect())
    }

    /// Gives those up that have none.
    pub fn stop(self) -> Result<Vec<String>> {
        fs::write(&self.stop, "")?;
        self.finish()
    }
}

/// Opens that many connections at once to an echo server, and counts those that got their own text back.
pub fn crowd(pod: &Pod, server: SocketAddr, count: usize) -> Result<usize> {
    let mut command = Script::Crowd.command(pod)?;
    command.args([
        server.ip().to_string(),
        server.port().to_string(),
        count.to_string(),
    ]);
    let output = pod.run_within(command, std::time::Duration::from_secs(60))?;
    let answered = output
        .stdout
        .trim()
        .parse()
        .with_context(|| output.stderr.clone())?;
    if answered < count {
        eprintln!("{}", output.stderr);
    }
    Ok(answered)
}

/// Silent connections and idle handshakes at a TLS port (`programs/strangers.py`), until dropped.
#[derive(Debug)]
pub struct Strangers {
    process: Process,
    stop: PathBuf,
}

impl Strangers {
    /// That many silent connections, spread over the servers, and so many handshakes a second.
    pub fn start(pod: &Pod, servers: &[SocketAddr], silent: usize, handshakes: usize) -> Result<Self> {
        let stop = pod.scratch().join("strangers.stop");
        let mut command = Script::Strangers.command(pod)?;
        command
            .args([silent.to_string(), handshakes.to_string()])
            .arg(&stop);
        for server in servers {
            command.args([server.ip().to_string(), server.port().to_string()]);
        }
        let process = pod.spawn(command)?;
        Ok(Self { process, stop })
    }

    pub fn until_ready(&mut self) -> Result<()> {
        self.process.until("has opened all connections", |process| {
            process.log().contains("ready")
        })
    }

    /// How many handshakes were finished.
    pub fn stop(mut self) -> Result<u64> {
        fs::write(&self.stop, "")?;
        self.process.wait(wait::SOON)?;
        let log = self.process.log();
        let line = log.lines().find_map(|line| line.strip_prefix("handshakes "));
        Ok(line.with_context(|| log.clone())?.trim().parse()?)
    }
}

/// `http://…/` for an address, with the brackets that IPv6 needs.
pub fn url(server: impl Into<SocketAddr>) -> String {
    format!("http://{}/", server.into())
}

/// Connections that stay open until told otherwise (`programs/keep.py`).
#[derive(Debug)]
pub struct Keep {
    process: Process,
    stop: PathBuf,
}

/// How many connections had which result: `ok`, or the step that failed and its errno.
pub type Results = BTreeMap<String, usize>;

impl Keep {
    /// That many to each of these echo servers, all at once; returns when each has a result.
    pub fn open(pod: &Pod, servers: &[SocketAddr], count: usize) -> Result<(Self, Results)> {
        Self::start(pod, "x", servers, count)
    }

    /// As [`Keep::open`], and nothing is sent.
    pub fn silent(pod: &Pod, servers: &[SocketAddr], count: usize) -> Result<(Self, Results)> {
        Self::start(pod, "", servers, count)
    }

    fn start(pod: &Pod, text: &str, servers: &[SocketAddr], count: usize) -> Result<(Self, Results)> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let stop = pod.scratch().join(format!("keep-{number}.stop"));
        let mut command = Script::Keep.command(pod)?;
        command.arg(count.to_string()).arg(&stop).arg(text);
        for server in servers {
            command.args([server.ip().to_string(), server.port().to_string()]);
        }
        let mut process = pod.spawn(command)?;
        process.until("has a result for each connection", |process| {
            process.log().lines().any(|line| line == "opened")
        })?;
        let log = process.log();
        let results = log.lines().take_while(|line| *line != "opened");
        let results = results.filter_map(|line| {
            let (result, count) = line.rsplit_once(' ')?;
            Some((result.to_owned(), count.parse().ok()?))
        });
        let results = results.collect();
        Ok((Self { process, stop }, results))
    }

    /// Tries each connection that was opened once more, closes all, and gives how many still worked.
    pub fn close(mut self) -> Result<usize> {
        fs::write(&self.stop, "")?;
        self.process.wait(wait::SOON)?;
        let log = self.process.log();
        let alive = log.lines().find_map(|line| line.strip_prefix("alive "));
        Ok(alive.context("keep.py did not end in order")?.parse()?)
    }
}
