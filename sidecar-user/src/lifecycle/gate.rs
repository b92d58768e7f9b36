//! The gate that every line of the log passes: a place in the code that has much to say is cut short.
//!
//! Peers, strangers and applications decide how often many places are passed, so that each of them could fill the disk.
//! In a burst a place shows its first [`SHOWN`] lines that differ; what goes beyond, or says the same again, is counted,
//! and one line tells the count. A burst ends when its place has been quiet for [`QUIET`], and after [`LONGEST`] at the
//! latest: then the next one begins, so that a flood that never ends is told of once a minute.
//!
//! What an operator asked for passes (debug and trace), and so does the audit trail, each line of which costs whoever
//! causes it a proof of identity. Lines that are too many for the reader of the log are the business of `writer.rs`.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Value, Visit};
use tracing::{Event, Level, Metadata, Subscriber, dispatcher};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// As many as a registry file can have remarks shown at a time: the most that one place says for its owner at once.
const SHOWN: usize = 20;

/// As long as the limits of the proxy have always waited before the next refusal is news.
const QUIET: Duration = Duration::from_secs(10);

/// With [`SHOWN`]: a place writes at most some 6 MB a day, in lines of 200 bytes.
const LONGEST: Duration = Duration::from_secs(60);

/// The target of lines that are records, of certificates for instance.
const AUDIT: &str = "outrigger::audit";

thread_local! {
    /// The gate's own lines pass it.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

#[derive(Default)]
pub(super) struct Gate {
    bursts: Mutex<Bursts<Identifier, Place>>,
    suppressed: AtomicU64,
}

/// Asks the gate about every event that the filter has let pass.
pub(super) struct GateLayer(pub(super) std::sync::Arc<Gate>);

/// What the last line of a burst is made from.
struct Place {
    metadata: &'static Metadata<'static>,
    /// Of the burst's first line, without its fields.
    message: String,
}

impl<S: Subscriber> Layer<S> for GateLayer {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.0.lets_pass(event, Instant::now())
    }
}

impl Gate {
    fn lets_pass(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == AUDIT || TELLING.get() {
            return true;
        }
        let place = metadata.callsite();
        let passes = !self.bursts().is_spent(&place, now) && {
            // Without the lock: formatting a field runs code of others.
            let line = Said::by(event);
            let about = Place {
                metadata,
                message: line.message,
            };
            self.bursts().shows(place, line.hash.finish(), now, about)
        };
        if !passes {
            self.suppressed.fetch_add(1, Relaxed);
        }
        passes
    }

    /// Lines that were counted instead of shown.
    pub(super) fn suppressed(&self) -> u64 {
        self.suppressed.load(Relaxed)
    }

    /// Is there a burst whose end has to be noticed?
    pub(super) fn is_busy(&self) -> bool {
        !self.bursts().open.is_empty()
    }

    /// Logs the counts of bursts that are over, or of all.
    pub(super) fn tell(&self, now: Instant, all: bool) {
        let over = self.bursts().over(now, all);
        TELLING.set(true);
        for burst in over {
            tell_of(&burst);
        }
        TELLING.set(false);
    }

    fn bursts(&self) -> MutexGuard<'_, Bursts<Identifier, Place>> {
        self.bursts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says it with the level and the target of the lines that it stands for, so that who sees those sees this.
fn tell_of(burst: &Over<Place>) {
    let Place { metadata, message } = &burst.about;
    let Some(field) = metadata.fields().field("message") else {
        return;
    };
    let text = format!(
        "{} ({} more such lines within {} s were left out)",
        message.lines().next().unwrap_or_default(),
        burst.count,
        burst.lasted.as_secs().max(1)
    );
    if dispatcher::get_default(|dispatch| dispatch.enabled(metadata)) {
        let values = [(&field, Some(&text as &dyn Value))];
        Event::dispatch(metadata, &metadata.fields().value_set(&values));
    }
}

/// What a line says: all of it as a number, and its message.
#[derive(Default)]
struct Said {
    hash: DefaultHasher,
    message: String,
}

impl Said {
    fn by(event: &Event<'_>) -> Self {
        let mut said = Self::default();
        event.record(&mut said);
        said
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        field.name().hash(&mut self.hash);
        // A value that cannot be formatted is left out of the line, too.
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
            self.message.hash(&mut self.hash);
        } else {
            let _ = write!(Hashing(&mut self.hash), "{value:?}");
        }
    }
}

struct Hashing<'h>(&'h mut DefaultHasher);

impl Write for Hashing<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// The bursts of all places. Time is an argument.
struct Bursts<K, A> {
    open: HashMap<K, Burst<A>>,
    /// Told of at the next opportunity.
    over: Vec<Over<A>>,
}

struct Burst<A> {
    about: A,
    first: Instant,
    last: Instant,
    /// What the lines said that were shown.
    shown: Vec<u64>,
    counted: u64,
}

struct Over<A> {
    about: A,
    count: u64,
    lasted: Duration,
}

impl<A> Burst<A> {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= QUIET
            || now.saturating_duration_since(self.first) >= LONGEST
    }

    fn count(&mut self, now: Instant) {
        self.counted += 1;
        self.last = now;
    }
}

impl<K: Hash + Eq, A> Bursts<K, A> {
    /// Has the place shown all that it may? Then this line of it is counted.
    fn is_spent(&mut self, place: &K, now: Instant) -> bool {
        match self.open.get_mut(place) {
            Some(burst) if burst.shown.len() >= SHOWN && !burst.is_over(now) => {
                burst.count(now);
                true
            }
            _ => false,
        }
    }

    /// Is the line shown? It is counted if not.
    fn shows(&mut self, place: K, line: u64, now: Instant, about: A) -> bool {
        if let Some(burst) = self.open.get_mut(&place)
            && !burst.is_over(now)
        {
            // Another thread may have been faster.
            if burst.shown.len() >= SHOWN || burst.shown.contains(&line) {
                burst.count(now);
                return false;
            }
            burst.shown.push(line);
            burst.last = now;
            return true;
        }
        let burst = Burst {
            about,
            first: now,
            last: now,
            shown: vec![line],
            counted: 0,
        };
        if let Some(before) = self.open.insert(place, burst) {
            self.over.extend(ended(before));
        }
        true
    }

    /// The bursts that are over, or all of them, if there is something to tell.
    fn over(&mut self, now: Instant, all: bool) -> Vec<Over<A>> {
        let over = self.open.extract_if(|_, burst| all || burst.is_over(now));
        self.over.extend(over.filter_map(|(_, burst)| ended(burst)));
        std::mem::take(&mut self.over)
    }
}

fn ended<A>(burst: Burst<A>) -> Option<Over<A>> {
    (burst.counted > 0).then(|| Over {
        about: burst.about,
        count: burst.counted,
        lasted: burst.last.saturating_duration_since(burst.first),
    })
}

impl<K, A> Default for Bursts<K, A> {
    fn default() -> Self {
        Self {
            open: HashMap::new(),
            over: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
