//! The `outrigger` command. Exit codes: 0 done, 1 failed, 2 wrong usage.

use std::process::ExitCode;

use clap::Parser;
use outrigger::cli::{Cli, run};
use outrigger::error_chain;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrigger: {}", error_chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
