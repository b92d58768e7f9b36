//! The `outrigger` command. Exit codes: 0 done, 1 failed, 2 wrong usage. Called as `kubectl-outrigger` it is the plugin, so that an
//! image needs one program for both.

use std::process::ExitCode;

use clap::Parser;
use outrigger::cli::{Cli, run};
use outrigger::{lifecycle, plugin};

fn main() -> ExitCode {
    if std::env::args_os()
        .next()
        .is_some_and(|name| plugin::is_called(&name))
    {
        return plugin::main();
    }
    let cli = Cli::parse();
    lifecycle::main(|| run(cli))
}
