//! What a service manager is told, by sd_notify(3).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::mesh::{Options, binaries, identity};
use harness::{Fabric, wait};
use nix::sys::signal::Signal;

use crate::lone::Lone;

/// A service manager's socket, and what came.
struct Manager {
    socket: PathBuf,
    heard: Receiver<String>,
}

impl Manager {
    fn listen(socket: PathBuf) -> Result<Self> {
        let messages = UnixDatagram::bind(&socket)?;
        // As systemd's own: whoever runs as another user may write to it.
        fs::set_permissions(&socket, Permissions::from_mode(0o777))?;
        let (hear, heard) = mpsc::channel();
        // Ends with its process: nobody can wake it without a message.
        thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = messages.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                if hear.send(text).is_err() {
                    return;
                }
            }
        });
        Ok(Self { socket, heard })
    }

    /// All that came until a message with this line, which is the last.
    fn until(&self, line: &str) -> Result<Vec<String>> {
        let mut all = Vec::new();
        loop {
            let message = self.heard.recv_timeout(wait::patiently(wait::SOON));
            let message = message.with_context(|| format!("no {line} came, but {all:?}"))?;
            let is_last = message.lines().any(|said| said.starts_with(line));
            all.push(message);
            if is_last {
                return Ok(all);
            }
        }
    }
}

fn is_said(messages: &[String], line: &str) -> bool {
    messages
        .iter()
        .any(|message| message.lines().any(|said| said.starts_with(line)))
}

#[test]
fn a_sidecar_says_what_it_waits_for_when_it_is_ready_that_it_lives_and_that_it_ends() -> Result<()> {
    let fabric = Fabric::new("manager")?;
    let manager = Manager::listen(fabric.scratch().join("notify"))?;
    let token = fabric.scratch().join("token");
    let options = Options::new("server")
        .token(token.clone())
        .manager(manager.socket.clone(), Duration::from_millis(300));
    let mut lone = Lone::new("manager-pod", &options)?;
    let before = manager.until("STATUS=not ready: identity")?;
    assert!(!is_said(&before, "READY=1"), "{before:?}");
    assert!(!lone.sidecar.is_ready());

    let issued = lone.control.token(&identity("server"))?;
    lone.sidecar.give(&[&issued])?;
    fs::rename(issued, &token)?;
    let ready = manager.until("READY=1")?;
    assert!(is_said(&ready[ready.len() - 1..], "STATUS=ready"), "{ready:?}");
    assert!(lone.sidecar.is_ready());
    manager.until("WATCHDOG=1")?;
    lone.sidecar.stop()?;
    let end = manager.until("STOPPING=1")?;
    assert!(!is_said(&end, "READY=1"), "only once: {end:?}");
    assert!(
        is_said(&end, "EXTEND_TIMEOUT_USEC=15000000"),
        "the drain and some: {end:?}"
    );
    Ok(())
}

#[test]
fn a_manager_that_reads_nothing_holds_up_nobody() -> Result<()> {
    let fabric = Fabric::new("deaf")?;
    let socket = fabric.scratch().join("notify");
    let _deaf = UnixDatagram::bind(&socket)?;
    let filler = UnixDatagram::unbound()?;
    filler.set_nonblocking(true)?;
    filler.connect(&socket)?;
    while filler.send(b"X=1").is_ok() {}
    let options = Options::new("server").manager(socket, Duration::from_millis(3));
    let mut lone = Lone::new("deaf-pod", &options)?;
    wait::until("it is ready", wait::SOON, || lone.sidecar.is_ready())?;
    // Its loop still turns, and ends in order.
    assert_eq!(lone.sidecar.flows()?["open"].as_array().map(Vec::len), Some(0));
    lone.sidecar.stop()
}

#[test]
fn the_authority_says_when_it_is_ready_and_that_it_ends() -> Result<()> {
    let fabric = Fabric::new("manager-ca")?;
    let manager = Manager::listen(fabric.scratch().join("notify"))?;
    let node = fabric.node();
    // As its unit starts it: all by variables.
    let mut command = node.command(binaries::path("outrigger")?);
    command
        .arg("control")
        .env("OUTRIGGER_STATE_DIR", fabric.scratch().join("state"));
    command
        .env("NOTIFY_SOCKET", &manager.socket)
        .env("WATCHDOG_USEC", "300000");
    let mut process = node.spawn(command)?;
    let ready = manager.until("READY=1")?;
    assert!(is_said(&ready, "STATUS=ready"), "{ready:?}");
    assert!(process.is_listening(15012));
    manager.until("WATCHDOG=1")?;
    process.signal(Signal::SIGTERM)?;
    manager.until("STOPPING=1")?;
    ensure!(process.wait(wait::SOON)?.success());
    Ok(())
}
