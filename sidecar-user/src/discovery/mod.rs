//! WHAT EXISTS? Sources of the registry, each ending in a `watch::Receiver<Arc<Snapshot>>`.

use std::path::PathBuf;

#[derive(Clone, Debug)]
pub struct Config {
    pub file: PathBuf,
}
