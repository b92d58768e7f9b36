//! How many frames that move no byte a peer may send. Pure: time is an argument.
//!
//! HTTP/2 lets a peer make work for almost nothing: PING and SETTINGS ask for an answer, a stream that is reset at once
//! costs a request and a dial (CVE-2023-44487), an empty DATA frame costs a task its turn. Each kind has a bucket that
//! real peers stay far below. Whoever overflows one loses the tunnel.

use std::time::{Duration, Instant};

use super::frames::{Frame, Kind};

/// Of frames that ask for an answer or do nothing. A peer sends a PING when a tunnel was silent for some seconds, and
/// SETTINGS a few times in the life of a tunnel; some implementations end a message with an empty DATA frame.
const CONTROL: Rate = Rate {
    burst: 1000,
    per_second: 100,
};

/// Of streams that the peer resets. Applications give up connects in bursts: a pool with a short time-out, a scanner, a
/// program with thousands of connects that is killed. Each costs some 30 µs here, so that the lasting rate is less
/// than a tenth of a core.
const RESETS: Rate = Rate {
    burst: 20_000,
    per_second: 2000,
};

struct Rate {
    burst: u32,
    per_second: u32,
}

/// Which bucket has overflowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    Control,
    Resets,
}

impl Flood {
    /// As metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control_flood",
            Self::Resets => "reset_flood",
        }
    }
}

/// One tunnel's buckets.
#[derive(Debug)]
pub(super) struct Gate {
    control: Bucket,
    resets: Bucket,
}

#[derive(Debug)]
struct Bucket {
    left: u32,
    filled: Instant,
}

impl Gate {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            control: Bucket::full(&CONTROL, now),
            resets: Bucket::full(&RESETS, now),
        }
    }

    /// `now` is asked for only when the frame counts, because most do not.
    pub(super) fn admit(&mut self, frame: &Frame, now: impl FnOnce() -> Instant) -> Result<(), Flood> {
        match frame.kind {
            Kind::Data if frame.len > 0 || frame.has_first_flag() => Ok(()),
            // Answers to what we asked.
            Kind::Settings | Kind::Ping if frame.has_first_flag() => Ok(()),
            // Bounded by the streams that there may be, by the credit that we need, and by their own size.
            Kind::Headers | Kind::GoAway | Kind::WindowUpdate => Ok(()),
            Kind::Reset => self.resets.take(&RESETS, now()).ok_or(Flood::Resets),
            Kind::Data | Kind::Settings | Kind::Ping | Kind::Other => {
                self.control.take(&CONTROL, now()).ok_or(Flood::Control)
            }
        }
    }
}

impl Bucket {
    fn full(rate: &Rate, now: Instant) -> Self {
        Self {
            left: rate.burst,
            filled: now,
        }
    }

    fn take(&mut self, rate: &Rate, now: Instant) -> Option<()> {
        if self.left == 0 {
            let gained =
                now.saturating_duration_since(self.filled).as_millis() * u128::from(rate.per_second) / 1000;
            self.left = u32::try_from(gained).unwrap_or(u32::MAX).min(rate.burst);
            if self.left > 0 {
                self.filled = now;
            }
        } else if now.saturating_duration_since(self.filled) > refilled(rate) {
            *self = Self::full(rate, now);
        }
        self.left = self.left.checked_sub(1)?;
        Some(())
    }
}

/// In which an empty bucket becomes full.
fn refilled(rate: &Rate) -> Duration {
    Duration::from_secs(1) * rate.burst / rate.per_second
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, flags: u8, len: usize) -> Frame {
        Frame {
            kind,
            flags,
            stream: 1,
            len,
        }
    }

    /// Frames that get through when so many are sent each second for so long.
    fn through(kind: Kind, per_second: u32, seconds: u32) -> (u32, bool) {
        let begin = Instant::now();
        let mut gate = Gate::new(begin);
        for n in 0..per_second * seconds {
            let now = begin + Duration::from_secs(1) * n / per_second;
            if gate.admit(&frame(kind, 0, 4), || now).is_err() {
                return (n, false);
            }
        }
        (per_second * seconds, true)
    }

    #[test]
    fn everyday_rates_pass_for_ever_and_floods_do_not() {
        assert!(through(Kind::Ping, 90, 600).1);
        assert!(through(Kind::Reset, 1900, 600).1);
        let (pings, passed) = through(Kind::Ping, 100_000, 5);
        assert!(!passed && pings <= 1100, "{pings}");
        let (resets, passed) = through(Kind::Reset, 100_000, 5);
        assert!(!passed && (20_000..=21_000).contains(&resets), "{resets}");
    }

    #[test]
    fn bursts_of_connects_that_are_given_up_pass() {
        let begin = Instant::now();
        let mut gate = Gate::new(begin);
        for burst in 0..10 {
            let now = begin + Duration::from_secs(3) * burst;
            for _ in 0..5000 {
                assert_eq!(gate.admit(&frame(Kind::Reset, 0, 4), || now), Ok(()));
            }
        }
    }

    #[test]
    fn what_moves_bytes_or_answers_us_is_not_counted() {
        let begin = Instant::now();
        let mut gate = Gate::new(begin);
        for _ in 0..100_000 {
            for frame in [
                frame(Kind::Data, 0, 1),
                frame(Kind::Data, 1, 0),
                frame(Kind::Ping, 1, 8),
                frame(Kind::Settings, 1, 0),
                frame(Kind::WindowUpdate, 0, 4),
                frame(Kind::Headers, 4, 70),
            ] {
                assert_eq!(gate.admit(&frame, || begin), Ok(()));
            }
        }
        let empty = frame(Kind::Data, 0, 0);
        let refused = (0..2000).find(|_| gate.admit(&empty, || begin).is_err());
        assert_eq!(refused, Some(1000));
    }
}
