//! `cargo xtask demo`: a small mesh of real programs on this machine, proved in a short report, then cleaned up.
//!
//! Read `demo/proof.rs` for what is proved and how. The network, the pods and the programs are the harness's; nothing
//! here is eBPF or netfilter.

mod held;
mod kernel;
mod look;
mod proof;
mod recording;
mod report;
mod stage;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use harness::interrupt::Interrupts;
use harness::mesh::binaries;

use crate::workspace::{self, PROGRAM, announce};
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
    /// Write a picture of who talked to whom, as SVG.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Put the report and the picture into README.md.
    #[arg(long, conflicts_with_all = ["hold", "agent", "picture"])]
    record: bool,
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
        None => perform(&opts),
    }
}

fn perform(opts: &Opts) -> Result<ExitCode> {
    host::demand_fit("the demo")?;
    if opts.hold {
        held::demand_none()?;
    }
    if !workspace::target_dir().join("release").join(PROGRAM).exists() {
        announce(
            "the first time, programs are built: five to six minutes on two cores; later it takes seconds",
        );
    }
    setup::ensure()?;
    binaries::use_dir(workspace::build_release(&[PROGRAM])?);

    let interrupts = Interrupts::handle()?;
    announce("pods, sidecars and programs");
    let mut stage = Stage::build(opts.agent)?;
    let mut report = Report::begin(&stage);
    proof::all(&mut stage, &mut report);
    let proved = report.end();
    let picture = match opts.record {
        true => Some(recording::picture_file()),
        false => opts.picture.clone(),
    };
    if let Some(file) = &picture {
        look::picture(&stage, file)?;
    }
    if opts.hold {
        let _held = held::announce(&stage)?;
        interrupts.wait()?;
        println!("\nCleaning up.");
    }
    let name = stage.mesh.fabric.name().to_owned();
    drop(stage);
    let left = harness::name::leftovers(&name);
    anyhow::ensure!(left.is_empty(), "not everything could be removed: {left:?}");
    if !proved {
        return Ok(ExitCode::FAILURE);
    }
    if opts.record {
        recording::write(report.text())?;
    }
    if !opts.hold {
        next_steps(opts);
    }
    Ok(ExitCode::SUCCESS)
}

/// What somebody who has seen it may want to see next.
const NEXT: [(&str, &str); 5] = [
    (
        "cargo xtask demo --hold",
        "keeps the pods up: run programs in them, look at them",
    ),
    (
        "cargo xtask demo --agent",
        "one agent for all, and sidecars without any privilege",
    ),
    (
        "cargo xtask demo --picture edges.svg",
        "who talks to whom, as a picture",
    ),
    (
        "cargo xtask cluster up",
        "a real Kubernetes of two nodes, on this machine alone",
    ),
    ("deploy/README.md", "Outrigger in a cluster of yours"),
];

fn next_steps(opts: &Opts) {
    println!("All of it is removed again. To try next:\n");
    for (command, what) in NEXT {
        let was_this = (opts.agent && command.ends_with("--agent"))
            || (opts.picture.is_some() && command.contains("--picture"));
        if !was_this {
            println!("    {command:<38} {what}");
        }
    }
}
