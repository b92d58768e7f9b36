//! `cargo xtask cluster test`: the tests that need a cluster (`tests/cluster`), on one that is brought up for them, and then that
//! nothing of it is left. A cluster that is up already is used as it is, and stays.

mod traces;

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Result;
use harness::cluster::Cluster;
use harness::interrupt::Interrupts;

use self::traces::Traces;
use super::{sweep, up};
use crate::image::BUILT;
use crate::test::run_cargo;
use crate::totals::Totals;
use crate::workspace::{self, announce};

#[derive(clap::Args)]
pub(super) struct Opts {
    /// Run only tests whose names contain this.
    name: Option<String>,
    /// Given to the test program, such as `--nocapture`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

const TARGET: [&str; 5] = ["test", "--package", "outrigger-tests", "--test", "cluster"];

pub(super) fn run(opts: &Opts) -> Result<ExitCode> {
    let begun = Instant::now();
    let parts = super::build()?;
    announce("cargo test --test cluster --no-run");
    workspace::run(workspace::cargo().args(TARGET).args(["--no-run", "--quiet"]))?;

    let _interrupts = Interrupts::handle_with(sweep::remove)?;
    let standing = Cluster::find()?.filter(super::is_alive);
    let totals = if standing.is_some() {
        announce("the cluster that is up already");
        run_tests(opts)?
    } else {
        let running = up::bring_up(&parts)?;
        let mut totals = run_tests(opts)?;
        if totals.failed > 0 {
            up::show_logs();
        }
        announce("cluster down");
        let traces = Traces::of(&running.cluster);
        drop(running);
        match traces.and_then(|traces| traces.demand_none()) {
            Ok(()) => totals.passed += 1,
            Err(error) => {
                eprintln!("error: {error:#}");
                totals.failed += 1;
            }
        }
        totals
    };
    announce(&format!(
        "tested on the cluster in {} s",
        begun.elapsed().as_secs()
    ));
    println!("{totals}");
    Ok(if totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run_tests(opts: &Opts) -> Result<Totals> {
    let mut cargo = workspace::cargo();
    // Tests run the plugin and the control plane on this machine, too: the programs of the image.
    if std::env::var_os(BUILT).is_none() {
        cargo.env(BUILT, workspace::target_dir().join("release"));
    }
    cargo
        .args(TARGET)
        .arg("--")
        .args(&opts.name)
        .args(&opts.arguments);
    run_cargo(with_default_signals(&cargo))
}

/// We have blocked the signals that we wait for, and children inherit that.
fn with_default_signals(command: &Command) -> Command {
    let mut wrapped = Command::new("env");
    wrapped
        .arg("--default-signal")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped
}
