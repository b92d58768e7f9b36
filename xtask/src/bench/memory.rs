//! What a sidecar weighs: ready and idle, and for each idle connection. Looks from outside, at `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::wait;
use serde::Serialize;

use super::core::Core;
use super::generator::Generator;
use super::topology::Topology;

/// For `--only`.
pub(super) const NAME: &str = "memory";

/// A sidecar has done its first work by then: certificate, registry, hooks.
const SETTLED: Duration = Duration::from_secs(10);
/// Long enough for a periodic chore to let go of what a burst of connections left.
const SILENCE: Duration = Duration::from_secs(5);
/// Idle connections, in steps, so that one sees whether each weighs the same.
const STEP: usize = 1000;
const STEPS: usize = 2;

/// In bytes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Weight {
    pub(super) side: &'static str,
    /// Ready for ten seconds, without a connection so far.
    pub(super) idle: Usage,
    pub(super) with_connections: Vec<(usize, Usage)>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Usage {
    /// Its own pages, and its share of those it has in common with others.
    pub(super) pss: f64,
    /// All pages, those of its program file too: the Pss of the only sidecar on a machine.
    pub(super) rss: f64,
}

impl Weight {
    /// What each of the most connections added.
    pub(super) fn per_connection(&self) -> Option<f64> {
        let (count, usage) = self.with_connections.last()?;
        Some((usage.pss - self.idle.pss) / *count as f64)
    }
}

/// Of both sidecars, the client's first.
pub(super) fn measure(topology: &Topology, core: &Core) -> Result<Vec<Weight>> {
    let mesh = &topology.mesh;
    let sides = [
        ("client", &mesh.client.sidecar),
        ("server", &mesh.server().sidecar),
    ];
    pass(SETTLED)?;
    let mut weights = Vec::new();
    for (side, sidecar) in sides {
        weights.push(Weight {
            side,
            idle: usage(sidecar.pid())?,
            with_connections: Vec::new(),
        });
    }
    let contender = &topology.mesh_ways.truthful;
    let mut held = Vec::new();
    for step in 1..=STEPS {
        let args = [
            "idle",
            &contender.echo.to_string(),
            "--connections",
            &STEP.to_string(),
        ]
        .map(str::to_owned);
        let mut idle = core.pinned(|| Generator::start(&contender.client, &args))?;
        idle.answer()?;
        held.push(idle);
        pass(SILENCE)?;
        for ((_, sidecar), weight) in sides.iter().zip(&mut weights) {
            let usage = usage(sidecar.pid())?;
            weight.with_connections.push((step * STEP, usage));
        }
    }
    Ok(weights)
}

fn usage(pid: Option<u32>) -> Result<Usage> {
    let path = format!("/proc/{}/smaps_rollup", pid.context("the sidecar does not run")?);
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let field = |name| parse(&text, name).with_context(|| format!("{path} has no {name}"));
    Ok(Usage {
        pss: field("Pss:")?,
        rss: field("Rss:")?,
    })
}

/// Bytes; the file counts in KiB.
fn parse(smaps: &str, name: &str) -> Option<f64> {
    let line = smaps.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// Time itself is the condition here: a process that does nothing gives no other sign.
fn pass(time: Duration) -> Result<()> {
    let begun = Instant::now();
    wait::until("time passes", 2 * time, || begun.elapsed() >= time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollup_gives_bytes() {
        let smaps =
            "55-ff ---p 0 00:00 0   [rollup]\nRss:      8192 kB\nPss:      7000 kB\nPss_Anon:  10 kB\n";
        assert_eq!(parse(smaps, "Pss:"), Some(7_168_000.0));
        assert_eq!(parse(smaps, "Rss:"), Some(8_388_608.0));
        assert_eq!(parse(smaps, "Swap:"), None);
    }

    #[test]
    fn a_connection_weighs_what_the_most_of_them_added() {
        let usage = |pss| Usage { pss, rss: 0.0 };
        let weight = Weight {
            side: "client",
            idle: usage(1e6),
            with_connections: vec![(1000, usage(9e6)), (2000, usage(11e6))],
        };
        assert_eq!(weight.per_connection(), Some(5000.0));
    }
}
