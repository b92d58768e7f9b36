//! Contenders take turns: a block is one slice of each, in random order. What disturbs the machine for longer than a
//! block disturbs all of them, so ratios are taken inside a block.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::core::Core;
use super::cpu::Meter;
use super::generator::Generator;
use super::machine::CoreTime;
use super::rows::{Row, Slice};
use super::statistics::Random;
use super::topology::Topology;

/// The rule is fixed before a run: a block with more than this share of its time stolen by the hypervisor is dropped.
pub(super) const MOST_STEAL: f64 = 0.05;

/// So many times the blocks wanted are tried before a row makes do with fewer.
const TRIES: usize = 2;

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Plan {
    pub(super) blocks: usize,
    pub(super) warm_up: Duration,
    pub(super) counted: Duration,
}

/// One row's figures.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Series {
    /// In the order of each list in `figures` of a block.
    pub(super) contenders: Vec<&'static str>,
    pub(super) blocks: Vec<Block>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Block {
    /// For each figure of the row, one value of each contender.
    pub(super) figures: Vec<Vec<f64>>,
    pub(super) steal: f64,
}

impl Series {
    pub(super) fn kept(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(|block| block.is_kept())
    }

    pub(super) fn dropped(&self) -> usize {
        self.blocks.len() - self.kept().count()
    }
}

impl Block {
    fn is_kept(&self) -> bool {
        self.steal <= MOST_STEAL
    }
}

pub(super) fn measure(row: &Row, topology: &Topology, plan: &Plan, core: &Core) -> Result<Series> {
    let contenders = (row.contenders)(topology);
    let cpu = Meter::of(topology)?;
    let mut generators = core.pinned(|| {
        contenders
            .iter()
            .map(|contender| Generator::start(&contender.client, &(row.load)(contender)))
            .collect::<Result<Vec<_>>>()
    })?;
    // A whole slice of each goes by before any counts: tunnels are up, code is in memory.
    for generator in &mut generators {
        generator.slice(plan.warm_up, plan.counted)?;
    }
    let mut random = Random::new(row.name.len() as u64);
    let mut turns: Vec<usize> = (0..contenders.len()).collect();
    let mut series = Series {
        contenders: contenders.iter().map(|contender| contender.name).collect(),
        blocks: Vec::new(),
    };
    while series.kept().count() < plan.blocks && series.blocks.len() < TRIES * plan.blocks {
        random.shuffle(&mut turns);
        let before = CoreTime::now(core)?;
        let mut figures = vec![vec![0.0; contenders.len()]; row.figures.len()];
        for &turn in &turns {
            let cpu_before = cpu.read()?;
            let facts = generators[turn].slice(plan.warm_up, plan.counted)?;
            let slice = Slice {
                facts,
                cpu: cpu.read()? - cpu_before,
            };
            for (values, figure) in figures.iter_mut().zip(row.figures) {
                values[turn] = (figure.of)(&slice).unwrap_or_default();
                ensure!(
                    values[turn] > 0.0,
                    "{} did nothing in a slice; make it longer: --slice",
                    contenders[turn].name
                );
            }
        }
        series.blocks.push(Block {
            figures,
            steal: CoreTime::now(core)?.steal_since(&before),
        });
    }
    ensure!(
        series.kept().next().is_some(),
        "the hypervisor stole more than {:.0} % of every block; run it on a quieter machine",
        MOST_STEAL * 100.0
    );
    Ok(series)
}
