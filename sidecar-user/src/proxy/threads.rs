//! The threads of the shards: started together, heard of when they end, joined without waiting. Decides nothing.

use std::io;
use std::thread::{self, JoinHandle};

use anyhow::Context;
use tokio::sync::mpsc;

use super::shard::context::Settings;
use super::shard::{self, Truthful};
use crate::intercept::Listeners;
use crate::observe::Observer;

pub(super) struct Threads {
    /// By the number of the shard; `None` once its end has been told.
    running: Vec<Option<JoinHandle<io::Result<()>>>>,
    ending: Vec<(usize, JoinHandle<io::Result<()>>)>,
    told: mpsc::UnboundedReceiver<usize>,
}

pub(super) fn start(
    settings: Settings,
    listeners: Vec<(Listeners, Option<Truthful>)>,
    observer: &Observer,
) -> anyhow::Result<Threads> {
    let (tell, told) = mpsc::unbounded_channel();
    let mut running = Vec::new();
    for (n, (listeners, truthful)) in listeners.into_iter().enumerate() {
        let (settings, observe) = (settings.clone(), observer.shard(n));
        let end = Ended(n, tell.clone());
        let thread = thread::Builder::new()
            .name(format!("shard-{n}"))
            .spawn(move || {
                let _end = end;
                shard::run(settings, listeners, truthful, observe)
            })
            .with_context(|| format!("cannot start the thread of shard {n}"))?;
        running.push(Some(thread));
    }
    Ok(Threads {
        running,
        ending: Vec::new(),
        told,
    })
}

/// Tells of a shard's end, however it ends.
struct Ended(usize, mpsc::UnboundedSender<usize>);

impl Drop for Ended {
    fn drop(&mut self) {
        // Nobody asks once the proxy has been cut.
        let _ = self.1.send(self.0);
    }
}

impl Threads {
    pub(super) fn count(&self) -> usize {
        self.running.len()
    }

    /// The next shard that ends. Waits for ever when all have.
    pub(super) async fn next_end(&mut self) -> usize {
        let Some(n) = self.told.recv().await else {
            return std::future::pending().await;
        };
        let thread = self.running.get_mut(n).and_then(Option::take);
        self.ending.extend(thread.map(|thread| (n, thread)));
        n
    }

    /// How those that have ended did so. The others are left to the end of the process, which takes them along: a shard
    /// that is stuck must not keep it.
    pub(super) fn join(self) -> anyhow::Result<()> {
        for (n, thread) in self.running.into_iter().enumerate() {
            if thread.is_some() {
                tracing::warn!(shard = n, "a shard has not ended in time, and is left behind");
            }
        }
        for (n, thread) in self.ending {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("shard {n} panicked"))?
                .with_context(|| format!("shard {n}"))?;
        }
        Ok(())
    }
}
