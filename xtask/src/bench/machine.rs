//! What a run ran on, and how disturbed it was. Changes nothing.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

use super::core::Core;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) core: usize,
    pub(super) kernel: String,
    pub(super) congestion_control: String,
    /// One-minute load averages at the begin and at the end; the run itself makes about 1.
    pub(super) load: [String; 2],
    /// Share of the core's time over the whole run.
    pub(super) steal: f64,
    #[serde(skip)]
    begun: CoreTime,
}

/// A core's clock ticks since boot.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoreTime {
    all: u64,
    stolen: u64,
}

impl Machine {
    pub(super) fn begin(core: &Core, congestion_control: String) -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown", |(_, name)| name.trim());
        Ok(Self {
            cpu: model.to_owned(),
            cores: info.lines().filter(|line| line.starts_with("processor")).count(),
            core: core.index(),
            kernel: read_line("/proc/sys/kernel/osrelease")?,
            congestion_control,
            load: [load()?, String::new()],
            steal: 0.0,
            begun: CoreTime::now(core)?,
        })
    }

    pub(super) fn end(mut self) -> Result<Self> {
        self.load[1] = load()?;
        self.steal = CoreTime::of(self.core)?.steal_since(&self.begun);
        Ok(self)
    }
}

impl CoreTime {
    pub(super) fn now(core: &Core) -> Result<Self> {
        Self::of(core.index())
    }

    fn of(core: usize) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Self::parse(&stat, core).with_context(|| format!("/proc/stat has no line for core {core}"))
    }

    fn parse(stat: &str, core: usize) -> Option<Self> {
        let name = format!("cpu{core}");
        let words = stat
            .lines()
            .map(str::split_whitespace)
            .find_map(|mut words| (words.next() == Some(name.as_str())).then_some(words))?;
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
        let ticks: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
        let &stolen = ticks.get(7)?;
        Some(Self {
            all: ticks.iter().sum(),
            stolen,
        })
    }

    /// The share of the time since then that the hypervisor gave to others.
    pub(super) fn steal_since(&self, before: &Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64
    }
}

fn load() -> Result<String> {
    let averages = read_line("/proc/loadavg")?;
    Ok(averages.split(' ').next().unwrap_or_default().to_owned())
}

fn read_line(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 4 5 6 7 8 1 0\ncpu1 10 0 0 80 0 0 0 10 5 0\nintr 1\n";

    #[test]
    fn steal_is_a_share_of_one_cores_time() {
        let before = CoreTime::parse(STAT, 1).unwrap();
        assert_eq!((before.all, before.stolen), (100, 10));
        let after = CoreTime::parse(&STAT.replace("80 0 0 0 10", "161 0 0 0 29"), 1).unwrap();
        assert_eq!(after.steal_since(&before), 0.19);
        assert_eq!(before.steal_since(&before), 0.0);
        assert!(CoreTime::parse(STAT, 2).is_none());
    }
}
