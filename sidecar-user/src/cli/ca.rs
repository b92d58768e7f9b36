//! `ca status` and `ca rotate`: how the root is replaced while everything runs, step by step.

use std::time::SystemTime;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};

use super::state_dir::StateDir;
use super::table::until;
use crate::issuer::rotation::{self, Phase, Status};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Shows the roots, and how far a rotation has come
    Status {
        #[command(flatten)]
        state: StateDir,
    },
    /// Takes a step of replacing the root: begin, switch, finish; or abort
    ///
    /// `begin` makes a second root and gives both out; `switch` lets it sign; `finish` takes the old one away; `abort`
    /// takes a step back. A running control process notices by itself. Each step refuses to come before everybody can have
    /// followed the one before, and says when it may; `ca status` shows it, too.
    Rotate {
        step: Step,
        #[command(flatten)]
        state: StateDir,
        /// Takes the step now; workloads that have not followed are cut off until their next renewal
        #[arg(long)]
        force: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Step {
    Begin,
    Switch,
    Finish,
    Abort,
}

pub(super) fn run(verb: Verb) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let status = match verb {
        Verb::Status { state } => rotation::status(&state.dir)?,
        Verb::Rotate { step, state, force } => {
            let step = match step {
                Step::Begin => rotation::Step::Begin,
                Step::Switch => rotation::Step::Switch,
                Step::Finish => rotation::Step::Finish,
                Step::Abort => rotation::Step::Abort,
            };
            rotation::take(&state.dir, step, force, now).context("the root is not replaced further")?
        }
    };
    print!("{}", shown(&status, now));
    Ok(())
}

fn shown(status: &Status, now: SystemTime) -> String {
    let mut text = format!("{}\n", status.phase.words());
    for (n, root) in status.roots.iter().enumerate() {
        let role = if n == 0 { "signs" } else { "is trusted" };
        text += &format!(
            "root {}… {role}, ends {}\n",
            root.fingerprint,
            until(root.ends, now)
        );
    }
    text += &match status.leaves_end > now {
        true => format!(
            "certificates of workloads end {} at the latest\n",
            until(status.leaves_end, now)
        ),
        false => "no certificate of a workload lives\n".to_owned(),
    };
    for (step, from) in &status.steps {
        text += &match *from > now {
            true => format!("{} is possible {}\n", step.name(), until(*from, now)),
            false => format!("{} is possible now\n", step.name()),
        };
    }
    if status.phase != Phase::Steady {
        text += "put root-cert.pem into every file that identity.roots names before finish\n";
    }
    text
}
