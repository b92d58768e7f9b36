//! The agent's counts as metrics, read at each scrape. The only place where their names are.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::memory::{Forgotten, Pods};
use super::register::Register;
use crate::observe::{Figure, Observer};

pub(super) fn show(observer: &Observer, register: Arc<Register>) {
    observer.figures(move || read(&register));
}

fn read(register: &Register) -> Vec<Figure> {
    let (pods, sidecars) = (register.pods(), register.sidecars(&Pods::default()));
    let has_one = |pod: &&String| sidecars.iter().any(|sidecar| *sidecar.pod == ***pod);
    let present = pods.keys().filter(has_one).count() as u64;
    let (bytes, limit, flows, forgotten) = {
        let memory = register.memory();
        let flows: usize = memory.pods().iter().map(|pod| pod.flows).sum();
        (memory.bytes(), memory.limit(), flows, memory.forgotten())
    };
    let Forgotten { age, room, skipped } = forgotten;
    let counts = &register.counts;
    vec![
        Figure::gauge(
            "outrigger_agent_pods",
            "Pods that this agent serves, by their sidecar",
        )
        .by(
            "sidecar",
            [("present", present), ("awaited", pods.len() as u64 - present)],
        ),
        Figure::gauge(
            "outrigger_agent_pods_refused",
            "Pods of this node that ask for a sidecar and can have none",
        )
        .value(register.refused().len() as u64),
        Figure::counter("outrigger_agent_grants", "Sessions that came into force")
            .value(counts.granted.load(Relaxed)),
        Figure::counter(
            "outrigger_agent_refusals",
            "Askers that got no session, by who they are",
        )
        .by(
            "asker",
            [
                ("stranger", counts.strangers.load(Relaxed)),
                ("sidecar", counts.refused.load(Relaxed)),
            ],
        ),
        Figure::gauge("outrigger_agent_memory_flows", "Flows that are remembered").value(flows as u64),
        Figure::gauge("outrigger_agent_memory_bytes", "Bytes that they take").value(bytes as u64),
        Figure::gauge(
            "outrigger_agent_memory_limit_bytes",
            "The most that they may take",
        )
        .value(limit as u64),
        Figure::counter(
            "outrigger_agent_flows_forgotten",
            "Flows that ended and are not remembered, by cause",
        )
        .by("cause", [("age", age), ("room", room), ("skipped", skipped)]),
        Figure::counter(
            "outrigger_agent_flows_interrupted",
            "How often a sidecar told of flows faster than they were read",
        )
        .value(counts.interrupted.load(Relaxed)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::memory::Limits;
    use super::*;

    #[test]
    fn every_figure_is_documented() {
        const MANUAL: &str = include_str!("../../../docs/observability.md");
        let dir = std::env::temp_dir().join(format!("outrigger-{}-agent-figures", std::process::id()));
        let register = Register::open(&dir, Limits::default()).unwrap();
        register.installed("a");
        for figure in read(&register) {
            let name = figure.exposed_name();
            assert!(MANUAL.contains(&format!("`{name}`")), "{name}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
