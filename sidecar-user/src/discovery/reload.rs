//! The registry file over time: read at start, read again when it changes, and never worse than its last good
//! state. What the text means is `file/`'s business.

use std::collections::HashSet;
use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::file::{self, Registry};
use super::{Config, Error, Feed, Status};
use crate::model::Snapshot;

/// Editors and config maps change a file in several steps; reading waits until they have been quiet this long.
const QUIET: Duration = Duration::from_millis(50);
/// A file that never stops changing is read nevertheless.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bind mounts, network file systems and directories that were deleted and made anew send no events.
const POLL: Duration = Duration::from_secs(5);

/// One remark repeated for every entry of a large file should not bury the log.
const SHOWN: usize = 20;

/// Reads the registry, which has to be good at start, and returns what follows its changes for as long as the
/// future runs. The future never ends.
pub fn watch(config: &Config) -> Result<(Feed, impl Future<Output = ()> + Send + use<>), Error> {
    // Watching begins before reading, so that no change falls between the two.
    let watched = Watched::new(&config.file)?;
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
        self.snapshots.send_replace(Arc::new(registry.snapshot));
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

/// Events about the directories that the file is reached through: its own, and the one it is a link into.
struct Watched {
    file: PathBuf,
    watcher: RecommendedWatcher,
    events: mpsc::Receiver<()>,
    directories: HashSet<PathBuf>,
    stamp: Option<Stamp>,
}

/// Tells most changes of a file without reading it.
#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let meta = std::fs::metadata(file).ok()?;
        Some(Self {
            inode: meta.ino(),
            len: meta.len(),
            modified: meta.modified().ok(),
        })
    }
}

impl Watched {
    fn new(file: &Path) -> Result<Self, Error> {
        let (wake, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // One pending wake-up is as good as many, so a full channel loses nothing.
            if event.is_ok_and(|event| may_change(&event.kind)) {
                let _ = wake.try_send(());
            }
        });
        let directory = parent(file);
        let error = |source| Error::Watch {
            path: directory.clone(),
            source,
        };
        let mut watched = Self {
            file: file.to_owned(),
            watcher: watcher.map_err(error)?,
            events,
            directories: HashSet::new(),
            stamp: Stamp::of(file),
        };
        watched.rearm();
        Ok(watched)
    }

    /// Returns when the file may have changed.
    async fn change(&mut self) {
        loop {
            let woken = timeout(POLL, self.events.recv()).await.is_ok();
            if woken {
                self.quiet().await;
            }
            self.rearm();
            let stamp = Stamp::of(&self.file);
            let moved = std::mem::replace(&mut self.stamp, stamp) != self.stamp;
            if woken || moved {
                return;
            }
        }
    }

    async fn quiet(&mut self) {
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience {
            let until = patience.min(Instant::now() + QUIET);
            if timeout_at(until, self.events.recv()).await.is_err() {
                return;
            }
        }
    }

    /// Follows the file to where it is now. A directory that is gone, or was made anew, is watched again.
    fn rearm(&mut self) {
        let linked = std::fs::canonicalize(&self.file).ok();
        let wanted: HashSet<PathBuf> = [Some(nearest_directory(&self.file)), linked.as_deref().map(parent)]
            .into_iter()
            .flatten()
            .collect();
        for gone in self.directories.difference(&wanted) {
            // It fails when the kernel has dropped the watch with the directory.
            let _ = self.watcher.unwatch(gone);
        }
        // Watching a path again is harmless, and finds the directory that now stands in its place.
        self.directories = wanted
            .into_iter()
            .filter(|directory| self.watcher.watch(directory, RecursiveMode::NonRecursive).is_ok())
            .collect();
    }
}

/// Our own reading raises events as well; following those would never end.
fn may_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => *access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// The file's directory or, while that is missing, the one in which it will appear again.
fn nearest_directory(file: &Path) -> PathBuf {
    let mut directory = parent(file);
    while !directory.is_dir() && directory.parent().is_some_and(|up| up != Path::new("")) {
        directory.pop();
    }
    directory
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests;
