//! The demo's report: a line or a few for each thing proved. Proves nothing itself.

use std::io::{self, Write};
use std::time::Instant;

use anyhow::Result;

use super::stage::Stage;

const TITLE_WIDTH: usize = 12;
/// Where the facts of a proof begin.
pub(super) const INDENT: usize = 6 + TITLE_WIDTH;

pub(super) struct Report {
    begun: Instant,
    failed: Vec<&'static str>,
}

impl Report {
    pub(super) fn begin(stage: &Stage) -> Self {
        let mesh = &stage.mesh;
        let sidecars = match stage.by_agent {
            true => "three pods in a mesh, each with a sidecar without privileges, one agent for all,",
            false => "three pods in a mesh, each with its sidecar,",
        };
        println!("\nOutrigger: {sidecars} and a server outside.\n");
        for (pod, programs) in [
            (&mesh.client.pod, "curl, redis-cli"),
            (&mesh.servers[0].pod, "nginx, redis-server, aiosmtpd"),
            (&mesh.servers[1].pod, "nginx, redis-server, aiosmtpd"),
            (&mesh.outside, "nginx, no sidecar"),
        ] {
            println!(
                "  {:<10} {:<12} {:<10} {programs}",
                pod.name(),
                pod.ipv4(),
                pod.ipv6()
            );
        }
        println!(
            "  {:<10} {:<12} {:<10} the service in front of both servers\n",
            "server",
            mesh.vip4(0).ip(),
            mesh.vip6(0).ip()
        );
        Self {
            begun: Instant::now(),
            failed: Vec::new(),
        }
    }

    /// One thing to prove. It gives the facts that prove it, a line each; an error is a failed proof.
    pub(super) fn prove(&mut self, title: &'static str, proof: impl FnOnce() -> Result<Vec<String>>) {
        let (mark, lines) = match proof() {
            Ok(facts) => ("ok  ", facts),
            Err(error) => {
                self.failed.push(title);
                ("FAIL", format!("{error:#}").lines().map(Into::into).collect())
            }
        };
        for (n, line) in lines.iter().enumerate() {
            let (mark, title) = if n == 0 { (mark, title) } else { ("", "") };
            println!("{mark:<4} {title:<TITLE_WIDTH$} {line}");
        }
        // Shown while the next proof is under way, also through a pipe.
        let _ = io::stdout().flush();
    }

    /// Whether all was proved.
    pub(super) fn end(self) -> bool {
        let seconds = self.begun.elapsed().as_secs_f32();
        match &self.failed[..] {
            [] => println!("\nAll of it proved in {seconds:.1} s."),
            failed => println!("\nNOT proved: {}.", failed.join(", ")),
        }
        self.failed.is_empty()
    }
}
