//! A log that nobody reads holds nothing up, and strangers do not decide how long it gets.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harness::apps::{self, Keep};
use harness::mesh::ports;
use harness::{Mesh, Pod, Sidecar, wait};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// Denies port 9100 of the server's namespace to everybody.
const DENY: &str = "policies:\n- {name: closed, namespace: demo, scope: Namespace, action: Deny, dryRun: false, \
                    rules: [[[{destinationPorts: [9100]}]]]}\n";

/// A pipe that is full from the beginning.
struct Pipe {
    path: PathBuf,
    pipe: File,
}

impl Pipe {
    fn full(dir: &Path) -> Result<Self> {
        let path = dir.join("log.fifo");
        mkfifo(&path, Mode::from_bits_truncate(0o600))?;
        let mut pipe = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&path)?;
        while pipe.write(&[b'\n'; 4096]).is_ok() {}
        Ok(Self { path, pipe })
    }

    /// Adds what is in it to the text.
    fn read_to(&mut self, text: &mut String) -> Result<()> {
        let mut bytes = [0; 65536];
        loop {
            match self.pipe.read(&mut bytes) {
                Ok(n) => text.push_str(&String::from_utf8_lossy(&bytes[..n])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("read the log"),
            }
        }
    }
}

/// Somebody who does not speak TLS, so many times.
fn strangers(from: &Pod, server: &Pod, count: usize) -> Result<()> {
    let at = SocketAddr::from((server.ipv4(), ports::HBONE));
    from.run_in(|| -> Result<()> {
        for _ in 0..count {
            let mut stream = TcpStream::connect(at)?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            // An alert and an end, or a reset: the proxy has looked at it.
            let _ = stream.read_to_end(&mut Vec::new());
        }
        Ok(())
    })?
}

fn dropped(sidecar: &Sidecar) -> Result<f64> {
    sidecar.metric("outrigger_log_lines_dropped_total", &[])
}

/// Mesh traffic, each connection of which is some lines at debug level, until lines are lost.
fn fill(mesh: &Mesh) -> Result<()> {
    let sidecar = &mesh.server().sidecar;
    let before = dropped(sidecar)?;
    wait::until_some("lines are dropped", 3 * wait::SOON, || {
        let (kept, opened) = Keep::open(&mesh.client.pod, &[mesh.vip4(9000)], 100)?;
        assert_eq!(opened, [("ok".to_owned(), 100)].into());
        assert_eq!(kept.close()?, 100);
        Ok((dropped(sidecar)? > before).then_some(()))
    })
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_traffic_nor_probes_nor_the_end() -> Result<()> {
    let mut mesh = Mesh::start("log-unread")?;
    mesh.serve(apps::echo, 9000)?;
    mesh.serve(apps::echo, 9100)?;
    let mut text = String::new();
    mesh.registry.update(|registry| text = registry.to_string())?;
    mesh.registry.write_raw(&(text + DENY))?;
    let mut log = Pipe::full(mesh.fabric.scratch())?;
    let sidecar = &mut mesh.servers[0].sidecar;
    sidecar.stop()?;
    sidecar.give(&[&log.path])?;
    sidecar.log_to(log.path.clone(), "debug");
    sidecar.restart()?;

    strangers(&mesh.outside, &mesh.server().pod, 300)?;
    let closed = SocketAddr::from((mesh.server().pod.ipv4(), 9100));
    let (denied, results) = Keep::open(&mesh.outside, &[closed], 100)?;
    assert_eq!(results, [("reset".to_owned(), 100)].into());
    denied.close()?;
    fill(&mesh)?;
    assert!(mesh.server().sidecar.is_ready());

    let mut read = String::new();
    wait::until_some("the log says that lines are missing", wait::SOON, || {
        log.read_to(&mut read)?;
        Ok(read.contains("lines of the log were dropped").then_some(()))
    })?;
    assert!(read.contains("proxy started"), "what came first is kept");
    read.clear();
    wait::until_some("new lines come", wait::SOON, || {
        let (kept, _) = Keep::open(&mesh.client.pod, &[mesh.vip4(9000)], 1)?;
        kept.close()?;
        log.read_to(&mut read)?;
        Ok(read.contains("DEBUG").then_some(()))
    })?;

    fill(&mesh)?;
    let sidecar = &mut mesh.servers[0].sidecar;
    assert_eq!(sidecar.metric("outrigger_panics_total", &[])?, 0.0);
    sidecar.stop()
}

#[test]
fn a_burst_is_shown_when_it_begins_and_counted_when_it_ends() -> Result<()> {
    let mut mesh = Mesh::start("log-burst")?;
    strangers(&mesh.outside, &mesh.server().pod, 200)?;
    let sidecar = &mut mesh.servers[0].sidecar;
    wait::until("all have been counted", wait::SOON, || {
        let suppressed = sidecar.metric("outrigger_log_lines_suppressed_total", &[]);
        suppressed.is_ok_and(|lines| lines == 180.0)
    })?;
    // The end of the process is the end of the burst.
    let log = sidecar.stop_and_read()?;
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("tunnel refused"))
        .collect();
    let (shown, counts): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| line.contains("client="));
    assert_eq!(shown.len(), 20, "{log}");
    assert!(
        matches!(counts[..], [count] if count.contains("(180 more such lines")),
        "{log}"
    );
    Ok(())
}
