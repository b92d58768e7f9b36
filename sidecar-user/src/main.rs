//! The `outrigger` command. Exit codes: 0 done, 1 failed, 2 wrong usage. Called as `kubectl-outrigger` it is the plugin, so that an
//! image needs one program for both.

use std::process::ExitCode;

use clap::Parser;
use outrigger::cli::{Cli, is_plugin, run};
use outrigger::{lifecycle, plugin};

fn main() -> ExitCode {
    if is_plugin() {
        return plugin::main();
    }
    let cli = Cli::parse();
    lifecycle::main(|| run(cli))
}
