//! What went over the bridge, by tcpdump. Filters nothing: an empty result must mean that nothing was sent.

use std::net::UdpSocket;
use std::path::PathBuf;
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
    tcpdump: Process,
    file: PathBuf,
}

/// Sent at the end: when the file holds it, it holds all that went before.
const END: &[u8] = b"outrigger-end-of-capture";

impl Capture {
    pub fn start(fabric: &Fabric) -> Result<Self> {
        let file = fabric.scratch().join("bridge.pcap");
        let mut command = fabric.node().command("tcpdump");
        command
            .args([
                "-i",
                BRIDGE,
                "-U",
                "--immediate-mode",
                "-n",
                "-B",
                "16384",
                "-Z",
                "root",
                "-w",
            ])
            .arg(&file);
        let mut tcpdump = fabric.node().spawn(command)?;
        tcpdump.until("listens on the bridge", |process| {
            process.log().contains("listening on")
        })?;
        Ok(Self {
            fabric: fabric.clone(),
            tcpdump,
            file,
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
        let end = wait::until_some("the capture holds its end mark", wait::SOON, || {
            Ok(Some(Recording::read(&self.file)?).filter(|recording| recording.holds(END)))
        });
        self.tcpdump.signal(Signal::SIGTERM)?;
        self.tcpdump.wait(Duration::from_secs(5))?;
        end.with_context(|| self.tcpdump.log())
    }
}
