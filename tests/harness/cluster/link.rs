//! What crosses the link between the nodes, by tcpdump. Filters nothing: an empty result must mean that nothing was sent.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{Cluster, DIRECTORY, LINK, netns};
use crate::netns::Netns;
use crate::pcap::Recording;
use crate::process::Process;
use crate::wait;

/// Sent at the end: when the file holds it, it holds all that went before.
const END: &[u8] = b"outrigger-end-of-capture";

/// A running capture. Start it before the traffic, [`stop`](LinkCapture::stop) it after.
#[derive(Debug)]
pub struct LinkCapture {
    netns: Netns,
    other: Ipv4Addr,
    tcpdump: Process,
    file: PathBuf,
}

impl LinkCapture {
    pub fn start(cluster: &Cluster) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = Path::new(DIRECTORY).join("captures");
        let number = NEXT.fetch_add(1, Relaxed);
        let file = dir.join(format!("{}-{number}.pcap", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let node = cluster.first();
        let mut command = node.network_command(Path::new("tcpdump"))?;
        command
            .args([
                "-i",
                LINK,
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
        let mut tcpdump = Process::spawn(command, &dir)?;
        tcpdump.until("listens on the link", |process| {
            process.log().contains("listening on")
        })?;
        Ok(Self {
            netns: Netns::open(&netns(&node.name))?,
            other: cluster.nodes[1].address,
            tcpdump,
            file,
        })
    }

    /// Ends the capture and reads it.
    pub fn stop(mut self) -> Result<Recording> {
        let other = self.other;
        self.netns.run(|| -> Result<()> {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(END, (other, 9))?;
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

impl Drop for LinkCapture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}
