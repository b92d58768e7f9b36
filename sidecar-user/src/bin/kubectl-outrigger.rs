//! `kubectl outrigger`: only the door; the plugin itself is `outrigger::plugin`.

use std::process::ExitCode;

fn main() -> ExitCode {
    outrigger::plugin::main()
}
