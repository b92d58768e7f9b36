//! `cargo xtask bench`: what a pair of sidecars costs, beside the same load with none, in one run on one core.
//!
//! `docs/performance.md` has the method. Each step is a file of its own, so that contenders can be added without
//! touching the rest. Nothing here passes or fails: a number is not a test.
//!
//! * [`topology`]: who contends; [`rows`]: what is measured, and what is aimed at
//! * [`generator`]: a load in a pod; [`blocks`]: contenders take turns; [`memory`]: what a sidecar weighs
//! * [`statistics`]: from samples to a number and how sure it is; [`report`]: the table and the file
//! * [`machine`]: what it ran on, and how disturbed; [`core`]: everything on one; [`cpu`]: what that took

mod blocks;
mod core;
mod cpu;
mod generator;
mod machine;
mod memory;
mod report;
mod rows;
mod statistics;
mod topology;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::interrupt::Interrupts;
use harness::mesh::binaries;

use crate::workspace::{self, announce};
use crate::{host, setup};

use self::blocks::Plan;
use self::core::Core;
use self::machine::Machine;
use self::report::Report;
use self::rows::ROWS;
use self::topology::Topology;

#[derive(clap::Args)]
pub(crate) struct Opts {
    /// How many blocks to keep for each row; in a block each contender has one slice.
    #[arg(long, default_value_t = 60)]
    blocks: usize,
    /// Milliseconds of a slice that count, after a warm-up.
    #[arg(long, default_value_t = 100)]
    slice: u64,
    /// The core to pin everything to, by default the last one; others should be idle too.
    #[arg(long)]
    core: Option<usize>,
    /// Only the rows with this word in their name, e.g. `bulk` or `memory`.
    #[arg(long)]
    only: Option<String>,
    /// Write everything, each block's figures too, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Thrown away before a slice counts: caches, windows, a tunnel that has gone.
const WARM_UP: Duration = Duration::from_millis(20);

pub(crate) fn run(opts: Opts) -> Result<ExitCode> {
    ensure!(
        opts.blocks > 0 && opts.slice > 0,
        "--blocks and --slice must not be 0"
    );
    let is_wanted = |name: &str| opts.only.as_deref().is_none_or(|word| name.contains(word));
    ensure!(
        is_wanted(memory::NAME) || ROWS.iter().any(|row| is_wanted(row.name)),
        "no row has that word in its name; there are: {}, {}",
        ROWS.map(|row| row.name).join(", "),
        memory::NAME
    );
    host::demand_fit("the benchmark")?;
    setup::ensure()?;
    binaries::use_dir(workspace::build_release(&["outrigger", "outrigger-tests"])?);

    let _interrupts = Interrupts::handle()?;
    let core = Core::choose(opts.core)?;
    let plan = Plan {
        blocks: opts.blocks,
        warm_up: WARM_UP,
        counted: Duration::from_millis(opts.slice),
    };
    let memory = if is_wanted(memory::NAME) {
        announce("memory of idle sidecars");
        // Pods of their own: a sidecar that has worked is no longer as small as one that has not.
        Some(memory::measure(&Topology::build(&core)?, &core)?)
    } else {
        None
    };

    announce("pods, sidecars and servers");
    let topology = Topology::build(&core)?;
    let protection = topology.protection()?;
    let machine = Machine::begin(&core, topology.congestion_control()?)?;
    let mut measured = Vec::new();
    for row in ROWS.iter().filter(|row| is_wanted(row.name)) {
        announce(row.title);
        let series = blocks::measure(row, &topology, &plan, &core).with_context(|| row.title.to_owned())?;
        measured.push((row, series));
    }
    drop(topology);

    let report = Report::new(machine.end()?, protection, &plan, measured, memory);
    report.print();
    if let Some(path) = &opts.json {
        report.write(path)?;
    }
    Ok(ExitCode::SUCCESS)
}
