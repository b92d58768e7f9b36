//! What went over the bridge, by tcpdump. Filters nothing: an empty result must mean that nothing was sent.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::fabric::{BRIDGE, Fabric};
use crate::pcap::Recording;
use crate::process::Process;
use crate::wait;

/// A running capture. Start it before the traffic, [`stop`](Capture::stop) it after.
#[derive(Debug)]
pub struct Capture {
    fabric: Fabric,
    tcpdump: Tcpdump,
}

impl Capture {
    pub fn start(fabric: &Fabric) -> Result<Self> {
        let file = fabric.scratch().join("bridge.pcap");
        let mut command = fabric.node().command("tcpdump");
        record(&mut command, BRIDGE, &file);
        let tcpdump = fabric.node().spawn(command)?;
        Ok(Self {
            fabric: fabric.clone(),
            tcpdump: Tcpdump::listening(tcpdump, file)?,
        })
    }

    /// Ends the capture and reads it.
    pub fn stop(mut self) -> Result<Recording> {
        self.fabric.node().run_in(|| -> Result<()> {
            let socket = UdpSocket::bind("10.99.0.1:0")?;
            socket.set_broadcast(true)?;
            socket.send_to(END, "10.99.255.255:9")?;
            Ok(())
        })??;
        self.tcpdump.end()
    }
}

/// Sent at the end: when the file holds it, it holds all that went before.
pub(crate) const END: &[u8] = b"outrigger-end-of-capture";

/// Makes tcpdump write what crosses the device to a file, each packet at once.
pub(crate) fn record(tcpdump: &mut Command, device: &str, file: &Path) {
    tcpdump
        .args([
            "-i",
            device,
            "-U",
            "--immediate-mode",
            "-n",
            "-B",
            "16384",
            "-Z",
            "root",
            "-w",
        ])
        .arg(file);
}

/// A tcpdump that [records](record).
#[derive(Debug)]
pub(crate) struct Tcpdump {
    process: Process,
    file: PathBuf,
}

impl Tcpdump {
    pub(crate) fn listening(mut process: Process, file: PathBuf) -> Result<Self> {
        process.until("listens on its device", |process| {
            process.log().contains("listening on")
        })?;
        Ok(Self { process, file })
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Ends it, once it holds [`END`], and reads what it has written.
    pub(crate) fn end(&mut self) -> Result<Recording> {
        let end = wait::until_some("the capture holds its end mark", wait::SOON, || {
            Ok(Some(Recording::read(&self.file)?).filter(|recording| recording.holds(END)))
        });
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(Duration::from_secs(5))?;
        end.with_context(|| self.process.log())
    }
}
