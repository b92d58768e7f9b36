//! A file over time: when it may have changed, however editors, config maps and links change it. Does not read it.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

/// Editors and config maps change a file in several steps; reading waits until they have been quiet this long.
const QUIET: Duration = Duration::from_millis(50);
/// A file that never stops changing is read nevertheless.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bind mounts, network file systems and directories that were deleted and made anew send no events.
const POLL: Duration = Duration::from_secs(5);

/// Events about the directories that the file is reached through: its own, and the one it is a link into.
pub struct Watched {
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
    /// Begins to watch, before the file is read for the first time, so that no change falls between the two.
    pub fn new(file: &Path) -> Result<Self, notify::Error> {
        let (wake, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // One pending wake-up is as good as many, so a full channel loses nothing.
            if event.is_ok_and(|event| may_change(&event.kind)) {
                let _ = wake.try_send(());
            }
        });
        let mut watched = Self {
            file: file.to_owned(),
            watcher: watcher?,
            events,
            directories: HashSet::new(),
            stamp: Stamp::of(file),
        };
        watched.rearm();
        Ok(watched)
    }

    /// Returns when the file may have changed.
    pub async fn change(&mut self) {
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
