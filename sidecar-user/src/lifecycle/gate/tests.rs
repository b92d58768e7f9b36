//! The rules of a burst, with time as an argument; and events of tracing at a gate of their own.

use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, fmt};

use super::*;

const MANY: u64 = SHOWN as u64;

/// What one place does, by the second.
struct Story {
    bursts: Bursts<&'static str, ()>,
    start: Instant,
}

impl Story {
    fn new() -> Self {
        Self {
            bursts: Bursts::default(),
            start: Instant::now(),
        }
    }

    fn at(&self, seconds: f32) -> Instant {
        self.start + Duration::from_secs_f32(seconds)
    }

    fn says(&mut self, place: &'static str, line: u64, seconds: f32) -> bool {
        let now = self.at(seconds);
        !self.bursts.is_spent(&place, now) && self.bursts.shows(place, line, now, ())
    }

    fn over(&mut self, seconds: f32) -> Vec<u64> {
        let now = self.at(seconds);
        self.bursts
            .over(now, false)
            .iter()
            .map(|over| over.count)
            .collect()
    }
}

#[test]
fn the_first_lines_of_a_burst_are_shown_and_the_others_counted_when_it_ends() {
    let mut story = Story::new();
    for line in 0..MANY {
        assert!(story.says("a", line, 0.0), "{line}");
    }
    for line in 0..500 {
        assert!(!story.says("a", MANY + line, 5.0), "{line}");
    }
    assert!(story.says("b", 0, 5.0), "another place");
    assert!(story.over(14.9).is_empty(), "not quiet for long enough");
    assert_eq!(story.over(15.0), [500], "and of b there is nothing to tell");
    assert!(story.bursts.open.is_empty());
    assert!(story.says("a", 0, 15.1), "the next burst");
}

#[test]
fn what_has_been_said_is_said_again_only_after_it_was_quiet() {
    let mut story = Story::new();
    assert!(story.says("a", 1, 0.0));
    assert!(!story.says("a", 1, 9.0));
    assert!(story.says("a", 2, 9.0), "something else");
    assert!(!story.says("a", 1, 18.0), "not quiet in between");
    assert!(story.says("a", 1, 29.0));
    assert_eq!(story.over(29.0), [2]);
}

#[test]
fn a_flood_that_never_ends_is_told_of_every_minute() {
    let mut story = Story::new();
    let (mut shown, mut counts) = (0, Vec::new());
    for n in 0..1800 {
        let seconds = n as f32 / 10.0;
        shown += u64::from(story.says("a", n, seconds));
        counts.extend(story.over(seconds));
    }
    assert_eq!(shown, 3 * MANY);
    assert_eq!(counts, [600 - MANY; 2]);
    assert_eq!(story.over(190.0), [600 - MANY]);
}

#[test]
fn a_place_that_speaks_now_and_then_is_never_cut_short() {
    let mut story = Story::new();
    for n in 0..1000 {
        assert!(story.says("a", n, n as f32 * 4.0), "{n}");
    }
}

#[test]
fn at_the_end_of_the_process_all_counts_are_told() {
    let mut story = Story::new();
    story.says("a", 1, 0.0);
    story.says("a", 1, 0.1);
    let now = story.at(0.2);
    assert_eq!(story.bursts.over(now, true).len(), 1);
    assert!(story.bursts.over(now, true).is_empty());
}

/// The lines of a log behind a gate.
fn logged(say: impl FnOnce(&Gate)) -> Vec<String> {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let (gate, lines) = (Arc::new(Gate::default()), Lines::default());
    let shared = lines.clone();
    let output = fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_writer(move || shared.clone());
    let subscriber = Registry::default().with(GateLayer(gate.clone())).with(output);
    tracing::subscriber::with_default(subscriber, || say(&gate));
    let text = lines.0.lock().unwrap().clone();
    String::from_utf8(text)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_count_looks_like_the_lines_that_it_stands_for() {
    let lines = logged(|gate| {
        for client in 0..100 {
            tracing::info!(target: "outrigger::proxy::walk::tunnel", client, "tunnel refused");
        }
        assert_eq!(gate.suppressed(), 100 - MANY);
        gate.tell(Instant::now(), true);
        assert!(!gate.is_busy());
    });
    assert_eq!(lines.len(), SHOWN + 1);
    assert_eq!(
        lines[0],
        " INFO outrigger::proxy::walk::tunnel: tunnel refused client=0"
    );
    assert_eq!(
        lines[SHOWN],
        " INFO outrigger::proxy::walk::tunnel: tunnel refused (80 more such lines within 1 s were left out)"
    );
}

#[test]
fn the_same_line_is_shown_once_and_another_one_of_the_same_place_as_well() {
    let lines = logged(|gate| {
        for lacking in ["ports", "memory"].repeat(50) {
            tracing::warn!(lacking, "refused");
        }
        gate.tell(Instant::now(), true);
    });
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[2].contains("(98 more such lines"), "{lines:?}");
}

#[test]
fn what_an_operator_asked_for_and_the_audit_trail_are_never_cut_short() {
    let lines = logged(|gate| {
        for serial in 0..100 {
            tracing::debug!(serial, "frame");
            tracing::info!(target: "outrigger::audit", serial, "certificate issued");
        }
        gate.tell(Instant::now(), true);
    });
    assert_eq!(lines.len(), 200);
}
