//! Renderings of the metrics: one serves all who ask within the same second, one is made at a time, on a thread that
//! neither the data path nor the control work waits for, and all that are still being read have a bound in memory.
//!
//! Readers hold no rendering themselves: a reader that is slower than the bound allows loses it in the middle.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::ageing::age_out;
use super::exposition::{self, Format};
use super::lock;
use super::shard::{Common, Shard};

/// How old a rendering may be for whoever asks now. Scrapers ask every few seconds; a thousand of them cost as much as
/// one.
pub(super) const SHARED_FOR: Duration = Duration::from_secs(1);

/// Bytes of all renderings that are kept for their readers. Usual ones have 50 kB and stay for minutes; a thousand label
/// sets make 10 MB in the worst case, whose readers have the second until the next one.
const MAX_KEPT: usize = 16 << 20;

pub(super) struct Renderer {
    registry: Mutex<Registry>,
    common: Arc<Common>,
    shards: Arc<Mutex<Vec<Arc<Shard>>>>,
    /// How long a label set stays that nobody uses.
    label_idle: Duration,
    kept: Arc<tokio::sync::Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    /// Newest last. The only owner of each text.
    renderings: VecDeque<Rendering>,
}

struct Rendering {
    format: Format,
    made: Instant,
    text: Arc<String>,
}

/// The text as long as it is kept, and its length.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub text: Weak<String>,
    pub len: usize,
}

impl Renderer {
    pub(super) fn new(
        registry: Registry,
        common: Arc<Common>,
        shards: Arc<Mutex<Vec<Arc<Shard>>>>,
        label_idle: Duration,
    ) -> Self {
        Self {
            registry: Mutex::new(registry),
            common,
            shards,
            label_idle,
            kept: Arc::default(),
        }
    }

    pub(super) fn register(&self, collector: impl Collector) {
        lock(&self.registry).register_collector(Box::new(collector));
    }

    /// The newest rendering, or a new one where that is older than `max_age`.
    pub(super) async fn current(
        self: Arc<Self>,
        format: Format,
        max_age: Duration,
    ) -> Result<Shared, fmt::Error> {
        let mut kept = self.kept.clone().lock_owned().await;
        let now = Instant::now();
        if let Some(shared) = kept.newest(format, now, max_age) {
            return Ok(shared);
        }
        // The lock goes along: a reader that gives up meanwhile does not let a second rendering begin.
        let made = tokio::task::spawn_blocking(move || {
            let text = self.render(format, now.into_std())?;
            Ok(kept.keep(Rendering {
                format,
                made: now,
                text: Arc::new(text),
            }))
        });
        made.await.unwrap_or(Err(fmt::Error))
    }

    /// Made for this caller alone, on its thread.
    pub(super) fn render(&self, format: Format, now: std::time::Instant) -> Result<String, fmt::Error> {
        let registry = lock(&self.registry);
        let shards = lock(&self.shards).clone();
        age_out(now, self.label_idle, &self.common.labels, &shards);
        exposition::render(&registry, format)
    }
}

impl Kept {
    fn newest(&self, format: Format, now: Instant, max_age: Duration) -> Option<Shared> {
        let newest = self.renderings.iter().rfind(|made| made.format == format)?;
        (now.duration_since(newest.made) < max_age).then(|| Shared::of(&newest.text))
    }

    /// The newest stays, whatever its length.
    fn keep(&mut self, rendering: Rendering) -> Shared {
        let shared = Shared::of(&rendering.text);
        self.renderings.push_back(rendering);
        while self.renderings.len() > 1 && self.bytes() > MAX_KEPT {
            self.renderings.pop_front();
        }
        shared
    }

    fn bytes(&self) -> usize {
        self.renderings.iter().map(|made| made.text.len()).sum()
    }
}

impl Shared {
    fn of(text: &Arc<String>) -> Self {
        Self {
            text: Arc::downgrade(text),
            len: text.len(),
        }
    }
}

impl fmt::Debug for Renderer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renderer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renderings_that_nobody_finishes_reading_have_a_bound() {
        let mut kept = Kept::default();
        let made = Instant::now();
        let all: Vec<Shared> = (0..10)
            .map(|_| {
                kept.keep(Rendering {
                    format: Format::Prometheus,
                    made,
                    text: Arc::new("x".repeat(MAX_KEPT / 4 + 1)),
                })
            })
            .collect();
        let alive = all
            .iter()
            .filter(|shared| shared.text.upgrade().is_some())
            .count();
        assert_eq!(alive, 3);
        assert!(all[9].text.upgrade().is_some(), "the newest");
        assert!(kept.bytes() <= MAX_KEPT);
    }
}
