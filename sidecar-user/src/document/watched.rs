//! A file over time: when it may have changed, however editors, config maps and links change it. Does not read it.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

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
            let woken = self.event(Instant::now() + POLL).await;
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
            if !self.event(until).await {
                return;
            }
        }
    }

    /// Waits for an event, at most so long. Where no more can come, because the thread that watches has ended, there is
    /// only the time left.
    async fn event(&mut self, until: Instant) -> bool {
        match timeout_at(until, self.events.recv()).await {
            Ok(Some(())) => true,
            Ok(None) => {
                sleep_until(until).await;
                false
            }
            Err(_) => false,
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
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_its_watcher_a_file_is_looked_at_from_time_to_time() {
        let directory = std::env::temp_dir().join(format!("outrigger-watched-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("file");
        std::fs::write(&file, "before").unwrap();
        let mut watched = Watched::new(&file).unwrap();
        let (_, ended) = mpsc::channel(1);
        watched.events = ended;
        let start = Instant::now();
        let unchanged = tokio::time::timeout(POLL * 10, watched.change()).await;
        assert!(
            unchanged.is_err(),
            "nothing has changed, after {:?}",
            start.elapsed()
        );
        std::fs::write(&file, "and after").unwrap();
        watched.change().await;
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
