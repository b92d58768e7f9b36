//! How a process lives and ends: its log, what it says of its own bugs, and the signals that end it. What is to be done
//! at the end is each role's business.
//!
//! A line's way: an event passes the filter, then the gate (`gate.rs`), is formatted where it happened, and copied into a
//! bounded queue (`writer.rs`). One thread writes the queue out, and nobody else ever waits for whoever reads the log.

mod application;
mod figures;
mod files;
mod gate;
mod logging;
pub mod messages;
pub mod notify;
mod panics;
mod privileges;
mod signals;
mod sys;
mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use crate::error_chain;

pub use application::{Application, follow_application};
pub use figures::figures;
pub use files::{file_limit, raise_file_limit};
pub use logging::{Error, Format, LogFilter, Logging, start_logging};
pub use privileges::{Privileges, keep, seal};
pub use signals::Shutdown;

/// How long the end of the process waits for a reader of its log. A pipe's reader that is alive takes all that can wait
/// (a megabyte) in milliseconds; one that is stuck must not keep the process, whose end a supervisor awaits.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What `main` does with a program: runs it, says why it failed, and sees the log's last lines out.
pub fn main(program: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    // A panic that leaves `main` would end the process before the log's thread has written what the hook has told it.
    let code = match catch_unwind(AssertUnwindSafe(program)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            logging::say(&format!("outrigger: {}", error_chain(error.as_ref())));
            ExitCode::FAILURE
        }
        // As the standard library's own.
        Err(_) => ExitCode::from(101),
    };
    logging::finish(LAST_LINES);
    code
}
