//! Waiting for conditions. Every wait has a limit and says what it waited for; none is a guess at a duration.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Enough for anything that should happen at once, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// How often a condition without a wake-up of its own is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Calls `probe` until it gives a value. An error of `probe` ends the wait at once.
pub fn until_some<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("{what}: not within {limit:?}");
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the pause between two looks, for everyone who waits"
        )]
        thread::sleep(POLL);
    }
}

/// Calls `probe` until it is true.
pub fn until(what: &str, limit: Duration, mut probe: impl FnMut() -> bool) -> Result<()> {
    until_some(what, limit, || Ok(probe().then_some(())))
}
