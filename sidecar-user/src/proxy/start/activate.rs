//! The turn of this proxy: it waits for what the one before leaves to it, and attaches. Accepts nothing; the shards do.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::super::config::Config;
use super::super::control;
use super::super::fixed::Fixed;
use super::super::kernel::Kernel;
use super::super::shard::Truthful;
use super::super::takeover::Former;
use super::super::{interception, network};
use super::identity::Identity;
use super::opened::Opened;
use super::shards::Active;
use crate::existing::Settled;
use crate::identity::{Mark, Way};
use crate::intercept::Listeners;
use crate::observe::Observer;

pub(super) struct Listening {
    /// What each shard accepts from.
    pub(super) shards: Vec<(Listeners, Option<Truthful>)>,
    pub(super) kernel: Option<Kernel>,
    pub(super) fixed: Fixed,
    pub(super) former: Option<Former>,
}

impl Listening {
    /// Waits for a certificate where a proxy serves until then. `None`: this one is to end before.
    pub(super) async fn take_over(self, opened: &mut Opened) -> anyhow::Result<Option<TakenOver>> {
        // Nobody else sets it.
        let _ = opened.own_sockets.set(own_sockets(self.kernel.as_ref()));
        let way = way(&opened.config, self.kernel.as_ref());
        let mut identity = Identity::new(opened.config.identity.clone(), way);
        if let (Some(former), Some(kernel)) = (&self.former, &self.kernel) {
            if !kernel.is_apart() {
                kernel.session().proof().see()?;
            }
            tokio::select! {
                () = former.until_ready(identity.svid.clone()) => {}
                failed = &mut identity.kept => match failed? {},
                reason = opened.shutdown.requested() => {
                    tracing::info!(%reason, owner = former.pid(), "the pod was not taken over");
                    return Ok(None);
                }
            }
            former.lay_down()?;
        }
        Ok(Some(TakenOver {
            identity,
            shards: self.shards,
            kernel: self.kernel,
            fixed: self.fixed,
            former: self.former,
        }))
    }
}

/// How certificates are asked for.
fn way(config: &Config, kernel: Option<&Kernel>) -> Way {
    match &config.agent {
        Some(door) if config.identity.is_agents() => Way::Agent(control::open(door)),
        _ => Way::Network(own_sockets(kernel)),
    }
}

/// How the control work's own connections stay out of our own way.
fn own_sockets(kernel: Option<&Kernel>) -> Mark {
    match kernel.map(|kernel| kernel.session().bypass()) {
        Some(bypass) => Arc::new(move |fd| bypass.mark(fd)),
        None => Arc::new(|_| Ok(())),
    }
}

pub(super) struct TakenOver {
    identity: Identity,
    shards: Vec<(Listeners, Option<Truthful>)>,
    kernel: Option<Kernel>,
    fixed: Fixed,
    former: Option<Former>,
}

impl TakenOver {
    /// From here on connections are brought to the listeners.
    pub(super) fn activate(self, opened: &mut Opened) -> anyhow::Result<Active> {
        let follow = || {
            let (addresses, world) = (opened.config.addresses.clone(), opened.feed.snapshots.clone());
            Some(network::follow(self.kernel.as_ref()?, addresses, world))
        };
        // Where a proxy serves, these programs know as much as its own from their first connection on. The maps of a proxy that
        // an agent serves are those of the one before until then.
        let is_before = |kernel: &Kernel| self.former.is_some() && kernel.is_installed();
        let followed: Option<JoinSet<()>> = self
            .kernel
            .as_ref()
            .filter(|k| is_before(k))
            .and_then(|_| follow());
        if let Some(kernel) = &self.kernel {
            kernel.activate()?;
        }
        // Before the first connection is delivered: only to programs that are known to be of the pod's cgroup.
        let followed_network = followed.or_else(follow);
        opened.conditions.listeners.met();
        if let Some(kernel) = &self.kernel {
            let settled = kernel.settle(opened.config.existing);
            settled.tell();
            count_existing(&opened.observer, &settled);
        }
        let policy = opened.interception_policy.take();
        Ok(Active {
            followed_policy: interception::follow(policy, self.kernel.as_ref(), &opened.observer),
            followed_network,
            identity: self.identity,
            shards: self.shards,
            kernel: self.kernel,
            fixed: self.fixed,
            former: self.former,
        })
    }
}

fn count_existing(observer: &Observer, settled: &Settled) {
    let counts = &observer.meters().existing_connections;
    counts.of("kept").set(settled.kept as i64);
    counts.of("destroyed").set(settled.destroyed as i64);
}
