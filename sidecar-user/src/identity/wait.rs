//! Waiting by the real clock, which certificates go by, and the chance that keeps a fleet from doing the same in one moment.

use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use super::PROVIDER;

/// Timers stand still while a machine sleeps and ignore a clock that is set, so the clock is looked at again.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

pub(super) async fn sleep_until(wake: SystemTime) {
    while let Ok(left) = wake.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        sleep(left.min(LONGEST_SLEEP)).await;
    }
}

/// From 0 to 1. Without random bytes everyone waits the middle.
pub(super) fn chance() -> f64 {
    let mut bytes = [0; 4];
    match PROVIDER.secure_random.fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_is_noticed_within_half_a_minute() {
        let begin = tokio::time::Instant::now();
        let wake = SystemTime::now() + LONGEST_SLEEP * 3;
        tokio::select! {
            // The real clock stands still beside tokio's, as after it was set back: it looks again and again.
            () = sleep_until(wake) => panic!("by the real clock it is too early"),
            () = sleep(LONGEST_SLEEP * 10) => {}
        }
        assert!(begin.elapsed() >= LONGEST_SLEEP * 10);
        sleep_until(SystemTime::now()).await;
    }
}
