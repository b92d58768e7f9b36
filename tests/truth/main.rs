//! `outrigger-truth`: uses sockets the way programs do, and prints what it observed, one fact a line.
//!
//! Each case has two halves. The client's half runs in one pod, the server's half in another, and both report; so a
//! line reads `topic/case/family: half.key=value`. What is under test is the connections between the halves. They
//! agree through a unix socket on a file system that both pods see.
//!
//! It judges nothing and knows nothing of Outrigger: the same program runs with and without it, and whoever started
//! it compares. So a fact must not depend on time, chance or load: ports that the kernel chose are words, addresses
//! have the names of their pods, and durations are not told.
//!
//! * [`case`]: what a case is, and all of them; [`half`]: what a half has at hand
//! * [`run`]: the client's side of the program; [`serve`]: the server's
//! * [`facts`], [`world`]: how facts are written down, and addresses named; [`peer`]: how the halves agree
//! * [`stream`], [`watch`]: bytes that tell whether they are the right ones; what poll(2) says
//! * all others: a topic each

mod bind;
mod bulk;
mod case;
mod close;
mod connect;
mod copyless;
mod facts;
mod fastopen;
mod half;
mod info;
mod listen;
mod mptcp;
mod names;
mod options;
mod peer;
mod queue;
mod readiness;
mod refuse;
mod reset;
mod run;
mod selfdial;
mod serve;
mod stream;
mod sys;
mod udp;
mod urgent;
mod uring;
mod watch;
mod world;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use world::World;

/// Prints what an application can observe of its sockets.
#[derive(Parser)]
#[command(name = "outrigger-truth")]
enum Mode {
    /// Runs the servers' halves until it is killed.
    Serve {
        /// Where to listen for clients: a path that both pods see.
        #[arg(long)]
        control: PathBuf,
    },
    /// Runs the cases and prints their facts.
    Run {
        #[arg(long)]
        control: PathBuf,
        #[command(flatten)]
        world: World,
        /// Cases that run at a time: most of them wait more than they work.
        #[arg(long, default_value_t = 12)]
        jobs: usize,
        /// Seconds after which something that should happen counts as something that does not.
        #[arg(long, default_value_t = 5)]
        patience: u64,
        /// Only cases whose name contains one of these.
        only: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Mode::parse() {
        Mode::Serve { control } => serve::run(&control),
        Mode::Run {
            control,
            world,
            jobs,
            patience,
            only,
        } => run::run(&control, &world, jobs, patience, &only),
    }
}
