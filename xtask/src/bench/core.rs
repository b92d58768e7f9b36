//! One core for all: contenders, generators and servers start pinned to it. This program itself stays away from it
//! where there is another.

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

#[derive(Debug)]
pub(super) struct Core {
    index: usize,
    alone: CpuSet,
    others: CpuSet,
}

impl Core {
    /// The core of that number, or the last usable one: the first serves most interrupts.
    pub(super) fn choose(wanted: Option<usize>) -> Result<Self> {
        let usable = sched_getaffinity(THIS_THREAD).context("ask for the usable cores")?;
        let is_usable = |n: usize| usable.is_set(n).unwrap_or(false);
        let last = (0..CpuSet::count())
            .rev()
            .find(|n| is_usable(*n))
            .context("no usable core")?;
        let index = wanted.unwrap_or(last);
        ensure!(
            is_usable(index),
            "core {index} is not usable here; the last one is {last}"
        );
        let mut alone = CpuSet::new();
        alone.set(index)?;
        let mut others = usable;
        if (0..=last).any(|n| n != index && is_usable(n)) {
            others.unset(index)?;
        }
        Ok(Self { index, alone, others })
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// What `work` starts is pinned to this core for life.
    pub(super) fn pinned<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        sched_setaffinity(THIS_THREAD, &self.alone).with_context(|| format!("pin to core {}", self.index))?;
        let result = work();
        sched_setaffinity(THIS_THREAD, &self.others).context("leave the core")?;
        result
    }
}

const THIS_THREAD: Pid = Pid::from_raw(0);
