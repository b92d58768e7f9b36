//! The start of a proxy, step by step. Each step consumes what the one before it has made, so that no other order compiles.
//! Serves nobody itself; the shards do.
//!
//! ```text
//!   Opened      signals, registry and policy file are read; nothing of the pod is touched
//!   Owned       the lease of the pod, and what its proxy before hands over
//!   Ports       every port is bound, none listens
//!   Installed   the programs are loaded, with what was in force before
//!   Filtered    each outbound listener has its ring and its filter
//!   Listening   the listeners stand in the slots of their shards
//!   TakenOver   the proxy before writes nothing any more
//!   Active      the programs are attached: connections arrive
//!   Confined    this process has given up what only its start needed
//!   Running     the shards accept them
//!   Serving     that connections get here is looked at again and again
//! ```
//!
//! Where a step fails, what the steps before it have made is dropped, the latest first: the fields of each step stand in that
//! order. So the proxy before hears last that this one has ended, and goes on.

mod activate;
mod identity;
mod opened;
mod prepare;
mod serving;
mod shards;

use std::sync::Arc;

use super::config::Config;
use super::limits;
use super::privileges::Kept;
use crate::datapath::PodTarget;
use crate::lifecycle::LogFilter;
use opened::Opened;
use prepare::Owned;

/// From nothing to the end of the proxy.
pub(super) async fn run(
    config: Config,
    pod: Option<PodTarget>,
    log: LogFilter,
    limited: Arc<limits::Shared>,
    kept: Kept,
) -> anyhow::Result<()> {
    let mut opened = Opened::new(config, log, limited, kept)?;
    let Some(owned) = Owned::new(&mut opened, pod).await? else {
        return Ok(());
    };
    let ports = owned.bind(&opened)?;
    let installed = ports.install(&opened)?;
    let filtered = installed.filter()?;
    let listening = filtered.listen()?;
    let Some(taken_over) = listening.take_over(&mut opened).await? else {
        return Ok(());
    };
    let active = taken_over.activate(&mut opened)?;
    let confined = active.give_up(&opened.config, kept)?;
    let running = confined.run(&opened)?;
    let serving = running.prove(&opened)?;
    serving.until_end(opened).await
}
