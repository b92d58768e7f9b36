//! The policy file over time: read at start, read again when it changes, and never worse than its last good state.
//! What the text means is `file.rs`'s business.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::super::session::PolicyMap;
use super::{Policy, parse};
use crate::document::{Problems, Watched};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the interception policy {}; check that the path is right and readable", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the interception policy is not valid:\n{}", problems.in_file(path))]
    Invalid { path: PathBuf, problems: Problems },
    #[error(
        "cannot watch the interception policy {} for changes; raise fs.inotify.max_user_instances if it is used up",
        path.display()
    )]
    Watch {
        path: PathBuf,
        #[source]
        source: notify::Error,
    },
    #[error(transparent)]
    Kernel(super::super::Error),
}

/// A policy file that was good at start.
pub struct PolicyFile {
    path: PathBuf,
    text: String,
    policy: Policy,
    watched: Watched,
}

/// How the file is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Of the policy in force: 1 is the one at start.
    pub generation: u64,
    /// Changes that were refused since the start. The last good policy stayed in force each time.
    pub failures: u64,
    /// What is wrong with the file as it is now; `None` when it is the one in force.
    pub error: Option<String>,
}

impl PolicyFile {
    pub fn open(path: &Path) -> Result<Self, Error> {
        // Watching begins before reading, so that no change falls between the two.
        let watched = Watched::new(path).map_err(|source| Error::Watch {
            path: path.into(),
            source,
        })?;
        let text = read(path)?;
        let policy = judge(path, &text)?;
        Ok(Self {
            path: path.into(),
            text,
            policy,
            watched,
        })
    }

    /// Reads a file once.
    pub fn check(path: &Path) -> Result<Policy, Error> {
        judge(path, &read(path)?)
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Follows the file's changes into the kernel, for as long as the future runs. It never ends.
    pub fn follow(self, map: PolicyMap) -> (watch::Receiver<Status>, impl Future<Output = ()> + Send) {
        let (status, receiver) = watch::channel(Status {
            generation: 1,
            failures: 0,
            error: None,
        });
        let Self {
            path,
            text,
            mut watched,
            ..
        } = self;
        let follower = async move {
            let mut follower = Follower {
                path,
                map,
                in_force: text,
                status,
            };
            loop {
                watched.change().await;
                follower.reload().await;
            }
        };
        (receiver, follower)
    }
}

struct Follower {
    path: PathBuf,
    map: PolicyMap,
    /// The text of the policy in force.
    in_force: String,
    status: watch::Sender<Status>,
}

impl Follower {
    async fn reload(&mut self) {
        let (path, map, in_force) = (self.path.clone(), self.map.clone(), self.in_force.clone());
        // Off this thread: the kernel takes a moment to let go of the policy before.
        let read = tokio::task::spawn_blocking(move || apply(&path, &map, &in_force)).await;
        match read {
            Ok(Ok(None)) => {
                self.status
                    .send_if_modified(|status| status.error.take().is_some());
            }
            Ok(Ok(Some(text))) => {
                self.in_force = text;
                self.status.send_modify(|status| {
                    status.generation += 1;
                    status.error = None;
                });
                let generation = self.status.borrow().generation;
                tracing::info!(file = %self.path.display(), generation, "interception policy changed");
            }
            Ok(Err(error)) => self.refuse(crate::error_chain(&error)),
            Err(panic) => self.refuse(format!("reading the interception policy failed: {panic}")),
        }
    }

    /// The same complaint is not repeated at every poll.
    fn refuse(&self, error: String) {
        let changed = self.status.send_if_modified(|status| {
            let changed = status.error.as_ref() != Some(&error);
            if changed {
                status.failures += 1;
                status.error = Some(error.clone());
            }
            changed
        });
        if changed {
            let generation = self.status.borrow().generation;
            tracing::error!(
                generation,
                "{error}\nthe last good interception policy stays in force"
            );
        }
    }
}

/// `None` when the text is the one in force.
fn apply(path: &Path, map: &PolicyMap, in_force: &str) -> Result<Option<String>, Error> {
    let text = read(path)?;
    if text == in_force {
        return Ok(None);
    }
    map.apply(&judge(path, &text)?).map_err(Error::Kernel)?;
    Ok(Some(text))
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })
}

fn judge(path: &Path, text: &str) -> Result<Policy, Error> {
    parse(text).map_err(|problems| Error::Invalid {
        path: path.into(),
        problems,
    })
}
