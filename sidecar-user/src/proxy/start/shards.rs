//! Starts the shards, and says what each of them is told. Serves nobody itself.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::config::{self, Config};
use super::super::doors::Doors;
use super::super::fixed::Fixed;
use super::super::kernel::Kernel;
use super::super::leaving::Leaving;
use super::super::phase::{self, Phase};
use super::super::privileges::{Asking, Kept};
use super::super::proving::Nonces;
use super::super::shard::Truthful;
use super::super::shard::context::Settings;
use super::super::takeover::{self, Former};
use super::super::{bounds, threads};
use super::identity::Identity;
use super::opened::Opened;
use super::serving::Running;
use crate::budget::Budget;
use crate::intercept::Listeners;
use crate::{lifecycle, relay};

/// The programs bring connections; nobody accepts them yet.
pub(super) struct Active {
    pub(super) followed_policy: JoinSet<()>,
    pub(super) followed_network: Option<JoinSet<()>>,
    pub(super) identity: Identity,
    pub(super) shards: Vec<(Listeners, Option<Truthful>)>,
    pub(super) kernel: Option<Kernel>,
    pub(super) fixed: Fixed,
    pub(super) former: Option<Former>,
}

impl Active {
    /// Before there is a shard, so that none has anything to give up.
    pub(super) fn give_up(self, config: &Config, kept: Kept) -> anyhow::Result<Confined> {
        let neighbours = Asking::begin(self.kernel.as_ref(), kept)?;
        let leaving = Leaving::begin(config.own_pod.as_ref(), self.kernel.as_ref(), kept)?;
        kept.alone();
        Ok(Confined {
            active: self,
            neighbours,
            leaving,
        })
    }
}

/// As [`Active`], without a capability.
pub(super) struct Confined {
    active: Active,
    neighbours: Option<Asking>,
    leaving: Option<Leaving>,
}

impl Confined {
    pub(super) fn run(self, opened: &Opened) -> anyhow::Result<Running> {
        self.active.run(opened, self.neighbours, self.leaving)
    }
}

impl Active {
    fn run(
        mut self,
        opened: &Opened,
        neighbours: Option<Asking>,
        leaving: Option<Leaving>,
    ) -> anyhow::Result<Running> {
        let observer = &opened.observer;
        let (phase_out, phase) = watch::channel(Phase::Serving);
        phase::show(observer, phase.clone());
        let (replaced_out, replaced) = watch::channel(false);
        let takeovers = self.former.as_ref().map_or(0, Former::takeovers);
        takeover::show(observer, takeovers);
        let hbone = self.shards.first().map(|(listeners, _)| &listeners.hbone);
        let (descriptors, admin_socket) = self
            .fixed
            .share(hbone)
            .context("cannot share the listeners with the proxy after this one")?;
        let handover = self.kernel.as_ref().map(Kernel::handover);
        let offer = handover.map(|handover| takeover::Offer {
            takeover: opened.config.takeover,
            identity: opened.config.identity.id.clone(),
            handover,
            admin_socket: admin_socket.clone(),
            observer: observer.clone(),
            phase: phase.clone(),
            replaced: replaced_out,
            takeovers,
        });
        let settings = self.settings(opened, phase.clone(), replaced.clone());
        bounds::show(observer, &settings.budget, &settings.doors);
        tokio::spawn(bounds::trim(settings.budget.clone()));
        Ok(Running {
            nonces: settings.nonces.clone(),
            threads: threads::start(settings, self.shards, observer)?,
            phase_out,
            phase,
            replaced,
            offer: offer.map(|offer| (offer, descriptors)),
            admin_socket,
            neighbours,
            leaving,
            followed: (self.followed_network, self.followed_policy),
            identity: self.identity,
            kernel: self.kernel,
            fixed: self.fixed,
            former: self.former,
        })
    }

    /// What every shard is told.
    fn settings(
        &mut self,
        opened: &Opened,
        phase: watch::Receiver<Phase>,
        replaced: watch::Receiver<bool>,
    ) -> Settings {
        let config = &opened.config;
        let own = config::own(config);
        let generation = self.kernel.as_mut().and_then(Kernel::generation);
        Settings {
            id: own.identity.clone(),
            addresses: own.addresses.clone(),
            own: Arc::new(own),
            mode: config.mode,
            unknown: config.unknown,
            own_ports: config::own_ports(config),
            status_port: config.observe.status_port,
            hbone_port: config.intercept.hbone_port,
            shards: config.workers,
            files: lifecycle::file_limit(),
            bypass: self.kernel.as_ref().map(|kernel| kernel.session().bypass()),
            world: opened.feed.snapshots.clone(),
            demand: opened.demand.clone(),
            svid: self.identity.svid.clone(),
            phase,
            replaced,
            generation: generation.map(Arc::new),
            meters: opened.observer.meters().clone(),
            limited: opened.limited.clone(),
            nonces: Nonces::default(),
            affinities: opened.affinities.clone(),
            budget: Budget::new(config.buffer_memory),
            doors: Doors::new(lifecycle::file_limit()),
            relay: relay::Limits {
                half_closed: config.half_closed,
            },
        }
    }
}
