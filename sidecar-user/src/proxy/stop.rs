//! The end of a proxy: who is still served, and until when. `Sequence` decides, with time as an argument; `follow`
//! brings it what happens and publishes the phase, which the shards act on.
//!
//! ```text
//!   Serving ──signal, drain──▶ LameDuck ──minimum──▶ Draining ──deadline──▶ Cut ──▶ the process ends
//!      │                          │                     ▲  │                 ▲             ▲
//!      └── the application has ended ───────────────────┘  └─ no flow is open ─────────────┘
//!                                 └──────── second signal ───────────────────┘
//! ```
//!
//! A proxy that was asked to be a lame duck is one until a signal comes, or until it is asked to end.
//! A proxy that another one has replaced goes the same way, but its lame duck ends soon: nobody new comes to it.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::phase::Phase;
use super::threads::Threads;
use crate::lifecycle::{self, Application, Shutdown};
use crate::observe::Observer;

/// How long a proxy that another one has replaced still accepts: a connection whose handshake had begun with it, of a client
/// that is far away or has lost a packet, ends it here. Nobody begins a new one.
const REPLACED_MINIMUM: Duration = Duration::from_secs(2);

/// From the cut to the end of the process: a shard takes half a second for its last resets and records of flows.
const CUT_LIMIT: Duration = Duration::from_millis(750);

/// Programs are looked for until the first one is seen, and one that started a moment ago may not have been seen yet.
const UNSEEN_MINIMUM: Duration = Duration::from_millis(250);

/// How a proxy ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The least time between the request to end and the first refusal of a newcomer.
    pub minimum: Duration,
    /// From the request to end until open flows are cut.
    pub deadline: Duration,
    pub lifetime: Lifetime,
}

/// What ends a proxy, beside signals and the admin endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// Nothing.
    #[default]
    Signal,
    /// The end of the last program of the pod. Until then everything is served, also after a signal; the deadline
    /// counts from there.
    Application,
}

/// What happens to a proxy.
#[derive(Clone, Copy, Debug)]
enum Event {
    Signal,
    /// By the admin endpoint, or because that cannot be served any more.
    Asked,
    /// The end is near, and somebody else will say when.
    Unadvertised,
    ShardEnded,
    /// Another proxy has taken the pod over.
    Replaced,
    Application(Application),
    /// Nothing but time.
    Time,
}

#[derive(Debug)]
struct Sequence {
    config: Config,
    phase: Phase,
    application: Application,
    /// Shards that run.
    shards: usize,
    signals: u32,
    replaced: bool,
    /// When the end was asked for.
    asked: Option<Instant>,
    /// When the phase ends by itself.
    until: Option<Instant>,
    over: bool,
}

impl Sequence {
    fn new(config: Config, shards: usize) -> Self {
        Self {
            config,
            phase: Phase::Serving,
            application: Application::Unseen,
            shards,
            signals: 0,
            replaced: false,
            asked: None,
            until: None,
            over: false,
        }
    }

    fn on(&mut self, event: Event, now: Instant) {
        match event {
            Event::Signal => {
                self.signals += 1;
                match self.signals {
                    1 => self.begin(now),
                    _ => self.cut(now),
                }
            }
            Event::Asked => self.begin(now),
            Event::Unadvertised => self.phase = self.phase.max(Phase::LameDuck),
            Event::Replaced => {
                self.replaced = true;
                if self.phase < Phase::Draining {
                    self.phase = Phase::LameDuck;
                    self.asked = Some(now);
                    self.until = self.lame_duck_end();
                }
            }
            Event::ShardEnded => {
                self.shards = self.shards.saturating_sub(1);
                // A part of the shards cannot serve what the kernel sends to all of them.
                self.close(now);
                self.over |= self.shards == 0;
            }
            Event::Application(application) => {
                self.application = application;
                match self.phase {
                    _ if self.replaced => {}
                    Phase::Serving | Phase::LameDuck if application == Application::Gone => self.close(now),
                    Phase::LameDuck => self.until = self.lame_duck_end(),
                    _ => {}
                }
            }
            Event::Time => {}
        }
        while self.until.is_some_and(|until| until <= now) && !self.over {
            match self.phase {
                Phase::Serving | Phase::LameDuck => self.close(now),
                Phase::Draining => self.cut(now),
                Phase::Cut => self.over = true,
            }
        }
    }

    fn begin(&mut self, now: Instant) {
        if self.phase <= Phase::LameDuck && self.asked.is_none() {
            self.phase = Phase::LameDuck;
            self.asked = Some(now);
            self.until = self.lame_duck_end();
        }
    }

    /// `None` while the pod's programs are waited for instead.
    fn lame_duck_end(&self) -> Option<Instant> {
        if self.replaced {
            return Some(self.asked? + REPLACED_MINIMUM);
        }
        let minimum = self.config.minimum.min(self.config.deadline);
        match (self.config.lifetime, self.application) {
            (Lifetime::Application, Application::Here) => None,
            (Lifetime::Application, Application::Unseen) => Some(self.asked? + minimum.max(UNSEEN_MINIMUM)),
            _ => Some(self.asked? + minimum),
        }
    }

    fn close(&mut self, now: Instant) {
        if self.phase < Phase::Draining {
            self.phase = Phase::Draining;
            let from = match self.config.lifetime {
                Lifetime::Signal => self.asked.unwrap_or(now),
                Lifetime::Application if !self.replaced => now,
                Lifetime::Application => self.asked.unwrap_or(now),
            };
            self.until = Some(from + self.config.deadline);
        }
    }

    /// A lame duck alone may serve for as long as it likes.
    fn is_ending(&self) -> bool {
        self.asked.is_some() || self.phase >= Phase::Draining
    }

    fn cut(&mut self, now: Instant) {
        if self.phase < Phase::Cut {
            self.phase = Phase::Cut;
            self.until = Some(now + CUT_LIMIT);
        }
    }
}

/// Asks a proxy to end, as a signal does, or to be ready for it. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Ask(watch::Sender<Option<Asked>>);

/// What a proxy was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// Not to be ready any more, until a signal comes.
    LameDuck,
    /// By whom stands in the log.
    End(&'static str),
}

impl Default for Ask {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Ask {
    /// `who` stands in the log.
    pub(super) fn end(&self, who: &'static str) {
        self.0.send_replace(Some(Asked::End(who)));
    }

    /// Whoever has been asked to end does that.
    pub(super) fn lame_duck(&self) {
        self.0.send_if_modified(|asked| {
            let is_first = asked.is_none();
            asked.get_or_insert(Asked::LameDuck);
            is_first
        });
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Asked>> {
        self.0.subscribe()
    }

    /// The phase as whoever has asked sees it, who may look again before the sequence has heard of it.
    pub(super) fn phase(&self, phase: Phase) -> Phase {
        match self.0.borrow().is_some() {
            true => phase.max(Phase::LameDuck),
            false => phase,
        }
    }
}

/// Where the news come from.
pub(super) struct News<'a> {
    pub(super) shutdown: &'a mut Shutdown,
    pub(super) asked: watch::Receiver<Option<Asked>>,
    pub(super) replaced: watch::Receiver<bool>,
    pub(super) threads: &'a mut Threads,
    /// Whether the pod's programs live; closed where nobody follows them.
    pub(super) application: watch::Receiver<Application>,
}

/// Lives through all phases. `serving` is dropped with the first refusal of a newcomer.
pub(super) async fn follow(
    config: Config,
    mut news: News<'_>,
    phase: watch::Sender<Phase>,
    observer: &Observer,
    serving: impl Sized,
) {
    let mut serving = Some(serving);
    let mut sequence = Sequence::new(config, news.threads.count());
    let mut ending = false;
    while !sequence.over {
        let (event, reason) = news.next(sequence.until, sequence.phase).await;
        let before = sequence.phase;
        sequence.on(event, Instant::now());
        if sequence.replaced || sequence.phase >= Phase::Draining {
            serving = None;
        }
        if !sequence.replaced && !ending && sequence.is_ending() {
            ending = true;
            lifecycle::notify::stopping(config.deadline);
        }
        if sequence.phase == before {
            continue;
        }
        if !sequence.replaced {
            // Who is still answered asks about the pod, which has another proxy.
            observer.readiness().drain();
        }
        match sequence.phase {
            Phase::Serving => {}
            Phase::LameDuck if sequence.replaced => {
                tracing::info!(
                    ?config,
                    "another proxy serves the pod; connections that began with this one go on"
                )
            }
            Phase::LameDuck => {
                tracing::info!(%reason, ?config, "not ready any more; everybody is still served")
            }
            Phase::Draining => tracing::info!(%reason, "newcomers are refused; open connections go on"),
            Phase::Cut => tracing::warn!(%reason, "open connections are cut"),
        }
        phase.send_replace(sequence.phase);
    }
    drop(serving);
}

impl News<'_> {
    async fn next(&mut self, until: Option<Instant>, phase: Phase) -> (Event, &'static str) {
        let time = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        let application = async {
            match self.application.changed().await {
                Ok(()) => *self.application.borrow_and_update(),
                Err(_) => std::future::pending().await,
            }
        };
        let asked = async {
            match self.asked.changed().await {
                Ok(()) => *self.asked.borrow_and_update(),
                Err(_) => std::future::pending().await,
            }
        };
        let replaced = async {
            match self.replaced.changed().await {
                Ok(()) => self.replaced.mark_unchanged(),
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = replaced => (Event::Replaced, "another proxy"),
            signal = self.shutdown.requested() => (Event::Signal, signal),
            asked = asked => match asked {
                Some(Asked::End(who)) => (Event::Asked, who),
                Some(Asked::LameDuck) | None => (Event::Unadvertised, "the admin endpoint"),
            },
            n = self.threads.next_end() => {
                if phase < Phase::Draining {
                    tracing::error!(shard = n, "a shard has ended by itself; the proxy cannot go on with a part of them");
                }
                (Event::ShardEnded, "the end of a shard")
            }
            state = application => (Event::Application(state), "the end of the application"),
            () = time => (Event::Time, "time is up"),
        }
    }
}

#[cfg(test)]
mod tests;
