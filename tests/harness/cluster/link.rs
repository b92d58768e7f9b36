//! What crosses the link between the nodes, by tcpdump. Filters nothing: an empty result must mean that nothing was sent.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context, Result};

use super::{Cluster, DIRECTORY, LINK, netns};
use crate::capture::{END, Tcpdump, record};
use crate::netns::Netns;
use crate::pcap::Recording;
use crate::process::Process;

/// A running capture. Start it before the traffic, [`stop`](LinkCapture::stop) it after.
#[derive(Debug)]
pub struct LinkCapture {
    netns: Netns,
    other: Ipv4Addr,
    tcpdump: Tcpdump,
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
        record(&mut command, LINK, &file);
        let tcpdump = Process::spawn(command, &dir)?;
        Ok(Self {
            netns: Netns::open(&netns(&node.name))?,
            other: cluster.nodes[1].ipv4,
            tcpdump: Tcpdump::listening(tcpdump, file)?,
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
        self.tcpdump.end()
    }
}

impl Drop for LinkCapture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.tcpdump.file());
    }
}
