//! `cargo xtask demo`: a small mesh of real programs on this machine, proved in a short report, then cleaned up.
//!
//! Read `demo/proof.rs` for what is proved and how. The network, the pods and the programs are the harness's; nothing
//! here is eBPF or netfilter.

mod held;
mod kernel;
mod proof;
mod report;
mod stage;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use harness::interrupt::Interrupts;
use harness::mesh::binaries;

use crate::workspace::{self, announce};
use crate::{host, setup};

use self::report::Report;
use self::stage::Stage;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Opts {
    /// Keep the pods up after the report, until Ctrl-C.
    #[arg(long)]
    hold: bool,
    /// One agent of the node for all pods, and sidecars without any privilege.
    #[arg(long)]
    agent: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Run a program inside a pod of the demo that is held: in its network namespace and its cgroup.
    Exec {
        /// A name that `demo status` shows.
        pod: String,
        /// The program and its arguments, after `--`.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Name the pods and services of the demo that is held.
    Status {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(opts: Opts) -> Result<ExitCode> {
    match opts.action {
        Some(Action::Exec { pod, command }) => held::exec(&pod, &command),
        Some(Action::Status { json }) => held::status(json),
        None => perform(opts.hold, opts.agent),
    }
}

fn perform(hold: bool, by_agent: bool) -> Result<ExitCode> {
    host::demand_fit("the demo")?;
    if hold {
        held::demand_none()?;
    }
    setup::ensure()?;
    binaries::use_dir(workspace::build_release(&["outrigger"])?);

    let interrupts = Interrupts::handle()?;
    announce("pods, sidecars and programs");
    let mut stage = Stage::build(by_agent)?;
    let mut report = Report::begin(&stage);
    proof::all(&mut stage, &mut report);
    let proved = report.end();
    if hold {
        let _held = held::announce(&stage)?;
        interrupts.wait()?;
        println!("\nCleaning up.");
    }
    let name = stage.mesh.fabric.name().to_owned();
    drop(stage);
    let left = harness::name::leftovers(&name);
    anyhow::ensure!(left.is_empty(), "not everything could be removed: {left:?}");
    Ok(if proved {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
