//! A bug is counted and logged with its backtrace, and then unwinds, so that it costs the task that met it: a
//! connection, one attempt to read a file. Catches nothing; tokio does, and `proxy/contain.rs`.

use std::any::Any;
use std::backtrace::Backtrace;
use std::collections::HashMap;
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(panic = "abort")]
compile_error!(
    "a panic has to unwind: else a bug that costs one connection takes the network of the pod away"
);

/// Naming the functions of a backtrace takes milliseconds. A bug that peers can cause at will shows its backtrace this
/// often, and in between only its place.
const BACKTRACE_EVERY: Duration = Duration::from_secs(60);

static PANICS: AtomicU64 = AtomicU64::new(0);

/// How often code of this process has panicked.
pub(super) fn panics() -> u64 {
    PANICS.load(Relaxed)
}

/// From now on a panic is given to `report`, and not written to standard error.
pub(super) fn install(report: impl Fn(Report) + Send + Sync + 'static) {
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Relaxed);
        report(Report::of(info));
    }));
}

/// One panic, as its own thread saw it.
pub(super) struct Report {
    message: String,
    /// File, line and column.
    place: String,
    thread: String,
    /// Only addresses until it is shown, on the log's thread.
    backtrace: Backtrace,
}

impl Report {
    fn of(info: &PanicHookInfo<'_>) -> Self {
        let place = info.location().map(ToString::to_string);
        Self {
            message: message(info.payload()).to_owned(),
            place: place.unwrap_or_else(|| "an unknown place".to_owned()),
            thread: thread::current().name().unwrap_or("unnamed").to_owned(),
            backtrace: Backtrace::force_capture(),
        }
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

/// Logs panics, and remembers which backtraces have been shown.
#[derive(Default)]
pub(super) struct Teller(HashMap<String, Instant>);

impl Teller {
    pub(super) fn tell(&mut self, report: &Report, now: Instant) {
        let Report {
            message,
            place,
            thread,
            backtrace,
        } = report;
        if self.shows_backtrace(place, now) {
            tracing::error!(thread, "panicked at {place}: {message}\n{backtrace}");
        } else {
            tracing::error!(thread, "panicked again at {place}: {message}");
        }
    }

    /// Places are in the code, so that their number is bounded.
    fn shows_backtrace(&mut self, place: &str, now: Instant) -> bool {
        match self.0.get(place) {
            Some(shown) if now - *shown < BACKTRACE_EVERY => false,
            _ => {
                self.0.insert(place.to_owned(), now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtrace_is_shown_once_in_a_while_for_each_place() {
        let (mut teller, start) = (Teller::default(), Instant::now());
        let mut shows = |place, seconds| teller.shows_backtrace(place, start + Duration::from_secs(seconds));
        assert!(shows("a.rs:1:1", 0));
        assert!(!shows("a.rs:1:1", 59));
        assert!(shows("b.rs:1:1", 59), "another place");
        assert!(shows("a.rs:1:1", 60));
    }

    #[test]
    fn the_message_of_a_panic_is_found() {
        assert_eq!(message(&"literal"), "literal");
        assert_eq!(message(&"formatted".to_owned()), "formatted");
        assert_eq!(message(&5), "a panic without a message");
    }
}
