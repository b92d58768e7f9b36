//! The `outrigger` command. Exit codes: 0 done, 1 failed, 2 wrong usage.

use std::process::ExitCode;

use clap::Parser;
use outrigger::cli::{Cli, run};
use outrigger::lifecycle;

fn main() -> ExitCode {
    let cli = Cli::parse();
    lifecycle::main(|| run(cli))
}
