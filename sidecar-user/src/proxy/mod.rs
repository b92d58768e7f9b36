//! ROLE: the sidecar. `walk/outbound.rs` and `walk/inbound.rs` are the two walks; read those first.
//!
//! This file and its neighbours assemble the rooms: the control work runs here on the calling thread, each shard of
//! the data path on a thread of its own.

mod affinity;
mod agent;
mod authorize;
mod bounds;
mod config;
mod considered;
mod contain;
mod control;
mod doors;
mod fixed;
mod granted;
mod interception;
mod kernel;
mod leaving;
mod left_alone;
mod limits;
mod live;
mod network;
mod outcome;
mod own_pod;
mod phase;
mod ports;
mod privileges;
mod proving;
mod readings;
mod shard;
mod sight;
mod start;
pub mod stop;
mod takeover;
mod threads;
mod trust;
mod tunnels;
mod walk;
mod watchers;
mod why;

use std::sync::Arc;

use anyhow::Context;

use crate::datapath::PodTarget;
use crate::lifecycle::{self, LogFilter};
pub use config::Config;
pub use own_pod::OwnPod;
pub use takeover::Takeover;

/// Runs until it has drained. Blocks. The thread that calls it gives up all its capabilities on the way.
pub fn run(mut config: Config, log: LogFilter) -> anyhow::Result<()> {
    let kept = privileges::Kept::find();
    lifecycle::raise_file_limit();
    // A pod that an agent serves is the one that this process is in.
    let own = config.datapath.as_mut().filter(|_| config.agent.is_none());
    let pod = match (own, &config.own_pod) {
        (Some(kernel), Some(own_pod)) => Some(own_pod.find(kernel)?),
        (Some(kernel), None) => Some(PodTarget::of(kernel)?),
        (None, _) => None,
    };
    if let Some(pod) = &pod {
        // Before there is another thread, so that every one of them is in the pod, with all sockets that it makes.
        pod.netns().enter()?;
    }
    let limited = limits::Shared::early(config.workers).context("cannot open /dev/null")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // What blocks reads files and writes policies: it needs no more before the pod is served than after.
        .on_thread_start(move || kept.alone())
        .build()?;
    let ended = runtime.block_on(start::run(config, pod, log, Arc::new(limited), kept));
    // Dropping a runtime waits for its blocking calls, one of which may hang on a file system.
    runtime.shutdown_background();
    ended
}
