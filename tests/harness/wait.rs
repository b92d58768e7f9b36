//! Waiting for conditions. Every wait has a limit and says what it waited for; none is a guess at a duration.

use std::env;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Enough for anything that should happen at once, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// A number in the environment: how many times longer every wait may take, for a machine that is emulated.
const PATIENCE: &str = "OUTRIGGER_TEST_PATIENCE";

/// How often a condition without a wake-up of its own is looked at.
const POLL: Duration = Duration::from_millis(5);

/// A limit as this machine needs it. The waits here see to it themselves.
pub fn patiently(limit: Duration) -> Duration {
    static FACTOR: LazyLock<u32> = LazyLock::new(|| match env::var(PATIENCE) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|e| panic!("{PATIENCE}={text:?} is no whole number: {e}")),
        Err(_) => 1,
    });
    limit * *FACTOR
}

/// Calls `probe` until it gives a value. An error of `probe` ends the wait at once.
pub fn until_some<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let limit = patiently(limit);
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

/// For a measurement of what goes on meanwhile. Nothing that a test asserts may depend on it.
#[expect(clippy::disallowed_methods, reason = "the time itself is what is wanted")]
pub fn pass(window: Duration) {
    thread::sleep(window);
}

/// Calls `probe` until it is true.
pub fn until(what: &str, limit: Duration, mut probe: impl FnMut() -> bool) -> Result<()> {
    until_some(what, limit, || Ok(probe().then_some(())))
}
