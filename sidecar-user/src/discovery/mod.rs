//! WHAT EXISTS? Sources of the registry, each ending in a `watch::Receiver<Arc<Snapshot>>`.
//!
//! Today there is one source: a file. It chooses no endpoint and enforces no policy.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::document::Problems;
use crate::model::Snapshot;

pub mod catalog;
mod demand;
pub mod file;
pub mod istio;
mod reload;
mod retire;
pub mod xds;

pub use demand::Demand;
pub use reload::watch;

/// Where the registry comes from.
#[derive(Clone, Debug)]
pub enum Source {
    File(Config),
    /// The agent of this node, which is asked for what is dialled.
    Agent,
    /// The control process itself, likewise, which is the authority of certificates too.
    Control,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub file: PathBuf,
}

/// What a source publishes for as long as its future runs.
#[derive(Clone, Debug)]
pub struct Feed {
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub status: watch::Receiver<Status>,
}

/// How the source is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Of the snapshot in force.
    pub generation: u64,
    /// When that snapshot was read.
    pub loaded: SystemTime,
    /// Reads that failed since the start. The last good snapshot stayed in force each time.
    pub failures: u64,
    /// What is wrong with the file as it is now; `None` when it is the one in force.
    pub error: Option<String>,
    /// What the snapshot in force says that is not acted on.
    pub warnings: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the registry {}; check that the path is right and readable", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the registry is not valid:\n{}", problems.in_file(path))]
    Invalid { path: PathBuf, problems: Problems },
    #[error(
        "cannot watch the registry {} for changes; raise fs.inotify.max_user_instances if it is used up",
        path.display()
    )]
    Watch {
        path: PathBuf,
        #[source]
        source: notify::Error,
    },
}
