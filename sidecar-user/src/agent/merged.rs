//! The answer to `GET /flows?watch=true` of an agent: the watches of all sidecars as one, also of those that come later. Each
//! event names its pod.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::client::{self, Error};
use super::memory::Pods;
use super::register::{Register, Sidecar};
use crate::observe::{Pieces, WatchEvent};

/// One watch. Its end ends those of the sidecars.
pub(super) struct Merged {
    lines: mpsc::Receiver<Bytes>,
    task: AbortHandle,
    watchers: Arc<Watchers>,
}

/// How many there are. Each takes a place at each sidecar, which has 16 for its agent.
#[derive(Debug, Default)]
pub(super) struct Watchers(AtomicUsize);

pub(super) const MOST: usize = 8;
/// Lines that wait for the reader. More wait in the sidecars, each of which cuts off a watch that is too slow.
const WAITING: usize = 256;
/// Before a sidecar that has not answered is asked again.
const AGAIN: Duration = Duration::from_secs(1);

impl Merged {
    /// `query` is for the sidecars. `None`: there are as many as there may be.
    pub(super) fn new(
        register: Arc<Register>,
        watchers: &Arc<Watchers>,
        pods: Pods,
        query: String,
    ) -> Option<Self> {
        let taken = watchers
            .0
            .fetch_update(Relaxed, Relaxed, |n| (n < MOST).then_some(n + 1));
        taken.ok()?;
        let (tell, lines) = mpsc::channel(WAITING);
        let task = tokio::spawn(follow(register, pods, query, tell)).abort_handle();
        Some(Self {
            lines,
            task,
            watchers: watchers.clone(),
        })
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        self.task.abort();
        self.watchers.0.fetch_sub(1, Relaxed);
    }
}

impl Pieces for Merged {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.lines.poll_recv(cx)
    }
}

/// Until one of them is cut off.
async fn follow(register: Arc<Register>, pods: Pods, query: String, tell: mpsc::Sender<Bytes>) {
    let mut changes = register.changes();
    let mut followed = HashSet::new();
    let mut tasks = JoinSet::new();
    loop {
        for sidecar in register.sidecars(&pods) {
            if followed.insert(sidecar.instance) {
                tasks.spawn(one(
                    register.clone(),
                    sidecar,
                    format!("/flows?watch=true&{query}"),
                    tell.clone(),
                ));
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            Some(ended) = tasks.join_next() => {
                if let Ok(End::CutOff) = ended {
                    return;
                }
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Of the sidecar.
    Gone,
    /// The reader is too slow, and has been told so.
    CutOff,
}

async fn one(register: Arc<Register>, sidecar: Sidecar, path: String, tell: mpsc::Sender<Bytes>) -> End {
    loop {
        let mut watch = match client::get(&sidecar.socket, &path).await {
            Ok(watch) => watch,
            Err(Error::Gone) => return End::Gone,
            Err(error) => {
                tracing::debug!(pod = %sidecar.pod, %error, "a sidecar cannot be watched");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        while let Ok(Some(line)) = watch.line().await {
            let Ok(mut event) = serde_json::from_slice(&line) else {
                continue;
            };
            name(&mut event, &register.names.of(&sidecar.pod));
            let Ok(mut text) = serde_json::to_vec(&event) else {
                continue;
            };
            text.push(b'\n');
            let is_over = tell.send(text.into()).await.is_err();
            if is_over || matches!(event, WatchEvent::Dropped { .. }) {
                return End::CutOff;
            }
        }
        return End::Gone;
    }
}

fn name(event: &mut WatchEvent, pod: &str) {
    match event {
        WatchEvent::Opened { flow } | WatchEvent::Closed { flow } => flow.pod = Some(pod.to_owned()),
        WatchEvent::Dropped { reason } => *reason = format!("{pod}: {reason}"),
        WatchEvent::Skipped { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory;
    use super::*;

    #[tokio::test]
    async fn there_are_as_many_watches_as_sidecars_have_places_for_and_the_end_of_one_makes_room() {
        let dir = std::env::temp_dir().join(format!("outrigger-{}-merged", std::process::id()));
        let register = Arc::new(Register::open(&dir, memory::Limits::default()).unwrap());
        let watchers = Arc::default();
        let watch = || Merged::new(register.clone(), &watchers, Pods::default(), String::new());
        let mut all: Vec<_> = (0..MOST).map(|_| watch().expect("there is room")).collect();
        assert!(watch().is_none());
        all.pop();
        assert!(watch().is_some());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
