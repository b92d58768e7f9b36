//! The registry file over time: read at start, read again when it changes, and never worse than its last good
//! state. What the text means is `file/`'s business.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::file::{self, Registry};
use super::retire::retire;
use super::{Config, Error, Feed, Status};
use crate::document::Watched;
use crate::model::Snapshot;

/// One remark repeated for every entry of a large file should not bury the log.
const SHOWN: usize = 20;

/// Reads the registry, which has to be good at start, and returns what follows its changes for as long as the
/// future runs. The future never ends.
pub fn watch(config: &Config) -> Result<(Feed, impl Future<Output = ()> + Send + use<>), Error> {
    // Watching begins before reading, so that no change falls between the two.
    let watched = Watched::new(&config.file).map_err(|source| Error::Watch {
        path: config.file.clone(),
        source,
    })?;
    let (text, registry) = load(&config.file, &Snapshot::default())?;
    let warnings = warn(&config.file, &registry);
    tracing::info!(file = %config.file.display(), holds = %registry.counts, "registry loaded");
    let (status, status_rx) = watch::channel(Status {
        generation: registry.snapshot.generation,
        loaded: SystemTime::now(),
        failures: 0,
        error: None,
        warnings,
    });
    let (snapshots, snapshots_rx) = watch::channel(Arc::new(registry.snapshot));
    let follower = Follower {
        file: config.file.clone(),
        in_force: digest(&text),
        snapshots,
        status,
    };
    let feed = Feed {
        snapshots: snapshots_rx,
        status: status_rx,
    };
    Ok((feed, follower.run(watched)))
}

struct Follower {
    file: PathBuf,
    /// Of the text that the snapshot in force was read from.
    in_force: Hash,
    snapshots: watch::Sender<Arc<Snapshot>>,
    status: watch::Sender<Status>,
}

type Hash = [u8; 32];

fn digest(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

impl Follower {
    async fn run(mut self, mut watched: Watched) {
        loop {
            watched.change().await;
            self.reload().await;
        }
    }

    async fn reload(&mut self) {
        let (file, before, in_force) = (self.file.clone(), self.snapshots.borrow().clone(), self.in_force);
        // Off this thread: a large registry takes a moment to parse, and certificates must be renewed meanwhile.
        let read = tokio::task::spawn_blocking(move || reload_from(&file, &before, in_force)).await;
        match read {
            Ok(Ok(None)) => {
                self.status
                    .send_if_modified(|status| status.error.take().is_some());
            }
            Ok(Ok(Some((text, registry)))) => self.accept(text, registry),
            Ok(Err(error)) => self.refuse(&describe(&error)),
            Err(panic) => self.refuse(&format!("reading the registry failed: {panic}")),
        }
    }

    fn accept(&mut self, text: Hash, registry: Registry) {
        let warnings = warn(&self.file, &registry);
        let generation = registry.snapshot.generation;
        tracing::info!(
            file = %self.file.display(),
            generation,
            holds = %registry.counts,
            "registry reloaded"
        );
        self.in_force = text;
        let old = self.snapshots.send_replace(Arc::new(registry.snapshot));
        tokio::spawn(retire(old));
        self.status.send_modify(|status| {
            *status = Status {
                generation,
                loaded: SystemTime::now(),
                failures: status.failures,
                error: None,
                warnings,
            };
        });
    }

    /// The same complaint is not repeated at every poll.
    fn refuse(&self, error: &str) {
        let changed = self.status.send_if_modified(|status| {
            let changed = status.error.as_deref() != Some(error);
            if changed {
                status.failures += 1;
                status.error = Some(error.to_owned());
            }
            changed
        });
        if changed {
            let generation = self.status.borrow().generation;
            tracing::error!(generation, "{error}\nthe last good registry stays in force");
        }
    }
}

fn load(path: &Path, before: &Snapshot) -> Result<(String, Registry), Error> {
    let text = read(path)?;
    let registry = parse(path, &text, before)?;
    Ok((text, registry))
}

/// `None` when the text is the one in force.
fn reload_from(path: &Path, before: &Snapshot, in_force: Hash) -> Result<Option<(Hash, Registry)>, Error> {
    let text = read(path)?;
    let hash = digest(&text);
    if hash == in_force {
        return Ok(None);
    }
    Ok(Some((hash, parse(path, &text, before)?)))
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn parse(path: &Path, text: &str, before: &Snapshot) -> Result<Registry, Error> {
    file::parse(text, before).map_err(|problems| Error::Invalid {
        path: path.to_owned(),
        problems,
    })
}

fn warn(path: &Path, registry: &Registry) -> Vec<String> {
    let warnings = registry
        .warnings
        .iter()
        .map(|warning| format!("{}:{warning}", path.display()));
    let warnings: Vec<String> = warnings.take(SHOWN).collect();
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    if let Some(more @ 1..) = registry.warnings.len().checked_sub(SHOWN) {
        tracing::warn!(
            "{}: and {more} more warnings; `outrigger config check` shows them",
            path.display()
        );
    }
    warnings
}

fn describe(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
