//! Follows the flows of one sidecar into the memory: first what it remembers, then each that ends, and again from the
//! beginning where that is cut off. Ends with the sidecar, which waits for nothing here.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::client::{self, Body, Error};
use super::memory::Pods;
use super::register::{Register, Sidecar};
use crate::observe::{FlowList, WatchEvent};

/// Before a sidecar that has not answered is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// For what a sidecar remembers.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of each kind of client. More than it keeps.
const LIMIT: usize = 10_000;
/// Events that wait here until that is told. When more come the watch waits, and is cut off where it waits too long.
const EARLY: usize = 8192;

/// Between two looks for flows that have become too old.
const EXPIRY: Duration = Duration::from_secs(30);

/// Follows each sidecar that there is, and forgets what becomes too old, until dropped.
pub(super) async fn run(register: Arc<Register>) {
    let mut changes = register.changes();
    let mut followed = HashSet::new();
    let mut tasks = JoinSet::new();
    let mut expiry = tokio::time::interval(EXPIRY);
    loop {
        for sidecar in register.sidecars(&Pods::default()) {
            if followed.insert(sidecar.instance) {
                tasks.spawn(follow(register.clone(), sidecar));
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            Some(ended) = tasks.join_next() => {
                if let Ok(instance) = ended {
                    followed.remove(&instance);
                }
            }
            _ = expiry.tick() => register.memory().expire(SystemTime::now()),
        }
    }
}

/// Gives its number at its end.
async fn follow(register: Arc<Register>, sidecar: Sidecar) -> u32 {
    let mut is_told = false;
    loop {
        match once(&register, &sidecar).await {
            // It was cut off, or the sidecar has ended: the next try tells.
            Ok(()) => is_told = false,
            Err(Error::Gone) => break,
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(pod = %sidecar.pod, %error, "the flows of a sidecar are not known; asked again each second");
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
    register.ended(&sidecar);
    sidecar.instance
}

/// Until the end of the watch.
async fn once(register: &Register, sidecar: &Sidecar) -> Result<(), Error> {
    // The watch first: what ends meanwhile is in both, and is kept once.
    let mut watch = client::get(&sidecar.socket, "/flows?watch=true&state=closed").await?;
    let (list, early) = remembered(sidecar, &mut watch).await?;
    let told: HashSet<u64> = list.closed.iter().map(|flow| flow.id).collect();
    register
        .memory()
        .caught_up(&sidecar.pod, sidecar.instance, list.closed, SystemTime::now());
    for line in early {
        take(register, sidecar, &line, &told);
    }
    while let Some(line) = watch.line().await? {
        take(register, sidecar, &line, &told);
    }
    Ok(())
}

async fn remembered(sidecar: &Sidecar, watch: &mut Body) -> Result<(FlowList, Vec<Bytes>), Error> {
    let path = format!("/flows?state=closed&limit={LIMIT}");
    let mut list = std::pin::pin!(client::ask(&sidecar.socket, &path, PATIENCE));
    let mut early = Vec::new();
    let answer = loop {
        tokio::select! {
            answer = &mut list => break answer?,
            line = watch.line(), if early.len() < EARLY => match line? {
                Some(line) => early.push(line),
                // It has ended; what it remembered may be on its way still.
                None => break list.await?,
            },
        }
    };
    let list = serde_json::from_slice(&answer).map_err(|error| Error::Silent(error.into()))?;
    Ok((list, early))
}

fn take(register: &Register, sidecar: &Sidecar, line: &[u8], told: &HashSet<u64>) {
    match serde_json::from_slice(line) {
        Ok(WatchEvent::Closed { flow }) if !told.contains(&flow.id) => {
            register
                .memory()
                .closed(&sidecar.pod, sidecar.instance, flow, SystemTime::now());
        }
        Ok(WatchEvent::Skipped { strangers }) => register.memory().lost(strangers),
        Ok(WatchEvent::Dropped { .. }) => {
            register.counts.interrupted.fetch_add(1, Relaxed);
        }
        Ok(WatchEvent::Closed { .. } | WatchEvent::Opened { .. }) => {}
        Err(error) => tracing::warn!(pod = %sidecar.pod, %error, "a sidecar tells what makes no sense"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::task::JoinHandle;

    use super::super::memory::{self, Question};
    use super::*;
    use crate::model::{Cause, Direction, Flow, Outcome, Party};
    use crate::observe::{self, Admin, Listeners, Observer, ShardObserver, serve_admin};

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn register(name: &str) -> (Dir, Arc<Register>) {
        let dir = std::env::temp_dir().join(format!("outrigger-{}-following-{name}", std::process::id()));
        let register = Register::open(&dir, memory::Limits::default()).unwrap();
        (Dir(dir), Arc::new(register))
    }

    /// A sidecar of the pod that serves at a socket of the register's, until aborted.
    fn sidecar(register: &Register, observer: &Observer) -> JoinHandle<()> {
        let listeners = Listeners {
            agent: register.questions("a"),
            ..Listeners::default()
        };
        let admin = Admin::of_flows(observer);
        tokio::spawn(async move { serve_admin(listeners, admin).await.unwrap() })
    }

    fn flows(shard: &ShardObserver, count: usize) {
        for _ in 0..count {
            let client = "10.0.0.1:4000".parse().unwrap();
            let flow = shard.open(Flow::new(Direction::Outbound, client, SystemTime::now()));
            flow.close(Outcome::new(Party::Client, Cause::Eof));
        }
    }

    fn remembered_ids(register: &Register) -> Vec<u64> {
        let question = Question::parse("limit=10000", SystemTime::now()).unwrap();
        let found = register.memory().found(&question);
        found.iter().map(|found| found.key().1).rev().collect()
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let met = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let met = tokio::time::timeout(Duration::from_secs(20), met).await;
        met.unwrap_or_else(|_| panic!("{what}"));
    }

    #[tokio::test]
    async fn what_ended_before_and_what_ends_is_kept_once_and_the_end_of_a_sidecar_is_seen() {
        let (dir, register) = register("once");
        let following = tokio::spawn(run(register.clone()));
        let observer = Observer::new();
        let shard = observer.shard(0);
        flows(&shard, 3);
        let serving = sidecar(&register, &observer);
        until("what it remembers is known", || {
            remembered_ids(&register).len() == 3
        })
        .await;
        flows(&shard, 2);
        until("what ends is known", || remembered_ids(&register).len() == 5).await;
        assert_eq!(remembered_ids(&register), [1, 2, 3, 4, 5]);

        serving.abort();
        until("its end is seen", || {
            register.sidecars(&Pods::default()).is_empty()
        })
        .await;
        assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 0);
        let next = sidecar(&register, &Observer::new());
        until("the next one is followed", || {
            register.sidecars(&Pods::default()).len() == 1
        })
        .await;
        assert_eq!(remembered_ids(&register).len(), 5);
        next.abort();
        following.abort();
    }

    /// Some of them are in the watch and in what the sidecar remembers.
    #[tokio::test]
    async fn what_ends_while_a_sidecar_begins_to_be_followed_is_kept_once() {
        const MANY: u64 = 500;
        let (_dir, register) = register("overlap");
        let following = tokio::spawn(run(register.clone()));
        let observer = Observer::new();
        let serving = sidecar(&register, &observer);
        for _ in 0..MANY {
            flows(&observer.shard(0), 1);
            tokio::task::yield_now().await;
        }
        let known = || register.memory().found(&Question::default()).len() as u64;
        until("all are known", || known() >= MANY).await;
        assert!(remembered_ids(&register).into_iter().eq(1..=MANY));
        serving.abort();
        following.abort();
    }

    #[tokio::test]
    async fn a_watch_that_was_cut_off_goes_on_and_what_the_sidecar_remembers_is_not_lost() {
        let (_dir, register) = register("cut");
        let following = tokio::spawn(run(register.clone()));
        let observer = Observer::with_limits(observe::Limits {
            watch_queue: 8,
            ..observe::Limits::default()
        });
        let shard = observer.shard(0);
        let serving = sidecar(&register, &observer);
        flows(&shard, 1);
        until("it is followed", || remembered_ids(&register).len() == 1).await;
        // More at once than wait for a watcher.
        flows(&shard, 100);
        until("all are known", || remembered_ids(&register).len() == 101).await;
        flows(&shard, 1);
        until("it is followed again", || remembered_ids(&register).len() == 102).await;
        let mut ids = remembered_ids(&register);
        ids.sort_unstable();
        assert!(ids.into_iter().eq(1..=102), "each once");
        assert!(register.counts.interrupted.load(Relaxed) > 0);
        serving.abort();
        following.abort();
    }
}
