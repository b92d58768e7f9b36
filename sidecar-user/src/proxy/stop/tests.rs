//! The sequence by events, with a clock of its own.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Clock {
    start: Instant,
    sequence: Sequence,
}

/// A proxy of two shards, with a minimum of 5 s and a deadline of 25 s.
fn proxy(lifetime: Lifetime) -> Clock {
    let config = Config {
        minimum: 5 * SECOND,
        deadline: 25 * SECOND,
        lifetime,
    };
    Clock {
        start: Instant::now(),
        sequence: Sequence::new(config, 2),
    }
}

impl Clock {
    /// The phase after this event at this second.
    fn at(&mut self, second: u32, event: Event) -> Phase {
        self.sequence.on(event, self.start + second * SECOND);
        self.sequence.phase
    }

    fn ends_at(&self) -> Option<u64> {
        let until = self.sequence.until?;
        Some((until - self.start).as_secs())
    }
}

#[test]
fn newcomers_are_refused_after_the_minimum_and_flows_cut_at_the_deadline() {
    let mut proxy = proxy(Lifetime::Signal);
    assert_eq!(proxy.at(1, Event::Signal), Phase::LameDuck);
    assert_eq!(proxy.ends_at(), Some(6));
    assert_eq!(proxy.at(5, Event::Time), Phase::LameDuck);
    assert_eq!(proxy.at(6, Event::Time), Phase::Draining);
    assert_eq!(proxy.ends_at(), Some(26), "both count from the signal");
    assert_eq!(proxy.at(25, Event::Time), Phase::Draining);
    assert_eq!(proxy.at(26, Event::Time), Phase::Cut);
    assert!(!proxy.sequence.over, "resets take a moment");
    proxy.at(27, Event::Time);
    assert!(proxy.sequence.over, "a stuck shard does not keep the process");
}

#[test]
fn a_proxy_that_was_replaced_accepts_for_a_moment_and_ends_by_its_deadline() {
    for lifetime in [Lifetime::Signal, Lifetime::Application] {
        let mut proxy = proxy(lifetime);
        proxy.at(0, Event::Application(Application::Here));
        assert_eq!(proxy.at(1, Event::Replaced), Phase::LameDuck);
        assert_eq!(proxy.ends_at(), Some(3), "whatever the minimum is");
        assert_eq!(proxy.at(2, Event::Signal), Phase::LameDuck, "it ends already");
        assert_eq!(
            proxy.at(2, Event::Application(Application::Gone)),
            Phase::LameDuck
        );
        assert_eq!(proxy.at(3, Event::Time), Phase::Draining);
        assert_eq!(proxy.ends_at(), Some(26));
        assert_eq!(proxy.at(4, Event::Signal), Phase::Cut, "the second signal");
    }
}

#[test]
fn a_proxy_that_ends_is_replaced_without_going_back() {
    let mut proxy = proxy(Lifetime::Signal);
    proxy.at(0, Event::Signal);
    proxy.at(5, Event::Time);
    assert_eq!(proxy.at(6, Event::Replaced), Phase::Draining);
    assert_eq!(proxy.ends_at(), Some(25));
}

#[test]
fn it_ends_as_soon_as_no_shard_has_an_open_flow() {
    let mut proxy = proxy(Lifetime::Signal);
    proxy.at(0, Event::Signal);
    proxy.at(5, Event::Time);
    assert_eq!(proxy.at(5, Event::ShardEnded), Phase::Draining);
    assert!(!proxy.sequence.over);
    assert_eq!(proxy.at(6, Event::ShardEnded), Phase::Draining);
    assert!(proxy.sequence.over);
}

#[test]
fn a_second_signal_cuts_in_every_phase() {
    for later in [0, 3, 10] {
        let mut proxy = proxy(Lifetime::Application);
        proxy.at(0, Event::Application(Application::Here));
        proxy.at(0, Event::Signal);
        proxy.at(later, Event::Time);
        assert_eq!(proxy.at(later, Event::Signal), Phase::Cut, "{later}");
        proxy.at(later + 1, Event::Time);
        assert!(proxy.sequence.over, "within a second");
    }
}

#[test]
fn a_drain_that_was_asked_for_is_not_cut_by_the_first_signal() {
    let mut proxy = proxy(Lifetime::Signal);
    assert_eq!(proxy.at(0, Event::Asked), Phase::LameDuck);
    assert_eq!(proxy.at(1, Event::Asked), Phase::LameDuck);
    assert_eq!(proxy.at(2, Event::Signal), Phase::LameDuck);
    assert_eq!(proxy.ends_at(), Some(5), "nor does it begin again");
    proxy.at(5, Event::Time);
    assert_eq!(proxy.at(6, Event::Signal), Phase::Cut);
}

#[test]
fn a_lame_duck_serves_until_a_signal_comes() {
    let mut proxy = proxy(Lifetime::Signal);
    assert_eq!(proxy.at(0, Event::Unadvertised), Phase::LameDuck);
    assert_eq!(proxy.ends_at(), None);
    assert_eq!(proxy.at(600, Event::Unadvertised), Phase::LameDuck);
    assert!(!proxy.sequence.is_ending());
    assert_eq!(proxy.at(601, Event::Signal), Phase::LameDuck, "the first one");
    assert_eq!(proxy.ends_at(), Some(606), "the minimum counts from the signal");
    assert_eq!(proxy.at(602, Event::Unadvertised), Phase::LameDuck);
    assert_eq!(proxy.ends_at(), Some(606));
    assert_eq!(proxy.at(606, Event::Time), Phase::Draining);
    assert_eq!(
        proxy.at(607, Event::Unadvertised),
        Phase::Draining,
        "there is no way back"
    );
}

#[test]
fn a_deadline_shorter_than_the_minimum_wins() {
    let mut proxy = proxy(Lifetime::Signal);
    proxy.sequence.config.deadline = 2 * SECOND;
    proxy.at(0, Event::Signal);
    assert_eq!(proxy.at(2, Event::Time), Phase::Cut);
}

#[test]
fn the_end_of_a_shard_ends_the_proxy() {
    let mut proxy = proxy(Lifetime::Signal);
    assert_eq!(proxy.at(3, Event::ShardEnded), Phase::Draining);
    assert_eq!(proxy.ends_at(), Some(28));
}

#[test]
fn without_a_signal_it_ends_with_its_application() {
    let mut proxy = proxy(Lifetime::Application);
    assert_eq!(proxy.at(1, Event::Application(Application::Here)), Phase::Serving);
    assert_eq!(
        proxy.at(60, Event::Application(Application::Gone)),
        Phase::Draining
    );
    assert_eq!(proxy.ends_at(), Some(85));
}

#[test]
fn after_a_signal_it_serves_until_its_application_has_gone() {
    let mut proxy = proxy(Lifetime::Application);
    proxy.at(0, Event::Application(Application::Here));
    assert_eq!(proxy.at(1, Event::Signal), Phase::LameDuck);
    assert_eq!(proxy.ends_at(), None);
    assert_eq!(proxy.at(100, Event::Time), Phase::LameDuck);
    assert_eq!(
        proxy.at(101, Event::Application(Application::Gone)),
        Phase::Draining
    );
    assert_eq!(proxy.ends_at(), Some(126), "the last bytes have the whole of it");
}

#[test]
fn an_application_that_was_never_seen_is_not_waited_for() {
    let mut proxy = proxy(Lifetime::Application);
    assert_eq!(proxy.at(1, Event::Signal), Phase::LameDuck);
    assert_eq!(proxy.ends_at(), Some(6));
    assert_eq!(
        proxy.at(2, Event::Application(Application::Here)),
        Phase::LameDuck
    );
    assert_eq!(proxy.ends_at(), None, "now there is one");
}

#[test]
fn an_application_that_started_with_the_signal_can_still_be_seen() {
    let mut proxy = proxy(Lifetime::Application);
    proxy.sequence.config.minimum = Duration::ZERO;
    assert_eq!(proxy.at(1, Event::Signal), Phase::LameDuck);
    assert_eq!(
        proxy.at(1, Event::Application(Application::Here)),
        Phase::LameDuck
    );
    assert_eq!(proxy.ends_at(), None);
}

#[test]
fn the_figure_is_documented() {
    const MANUAL: &str = include_str!("../../../../docs/observability.md");
    for figure in super::super::phase::read(Phase::Serving) {
        let name = figure.exposed_name();
        assert!(
            MANUAL.contains(&format!("| `{name}` | gauge | `state` |")),
            "{name}"
        );
    }
    for phase in Phase::ALL {
        assert!(MANUAL.contains(&format!("`{}`", phase.name())), "{phase:?}");
    }
}
