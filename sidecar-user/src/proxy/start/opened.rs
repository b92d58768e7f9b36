//! What a start begins with: signals, registry, policy file, conditions of readiness. Touches nothing of the pod, and binds
//! no port.

use std::pin::Pin;
use std::sync::Arc;

use super::super::affinity::Affinities;
use super::super::config::{self, Config};
use super::super::control::{self, OwnSockets};
use super::super::interception;
use super::super::limits;
use super::super::privileges::Kept;
use super::super::watchers::Conditions;
use crate::datapath::policy::PolicyFile;
use crate::discovery::{self, Demand, Feed, Source};
use crate::lifecycle::{self, LogFilter, Shutdown};
use crate::observe::Observer;

pub(super) struct Opened {
    pub(super) config: Config,
    pub(super) log: LogFilter,
    pub(super) limited: Arc<limits::Shared>,
    pub(super) affinities: Arc<Affinities>,
    pub(super) shutdown: Shutdown,
    pub(super) observer: Observer,
    pub(super) feed: Feed,
    pub(super) demand: Demand,
    pub(super) follow_registry: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(super) own_sockets: OwnSockets,
    pub(super) interception_policy: Option<PolicyFile>,
    pub(super) conditions: Conditions,
}

impl Opened {
    pub(super) fn new(
        mut config: Config,
        log: LogFilter,
        limited: Arc<limits::Shared>,
        kept: Kept,
    ) -> anyhow::Result<Self> {
        let shutdown = Shutdown::catch()?;
        let observer = Observer::new();
        observer.figures(lifecycle::figures);
        // A file that only a capability can read is refused now, and not when it is read again.
        let own_sockets = OwnSockets::default();
        let (feed, demand, follow_registry) = kept.without(|| registry(&config, own_sockets.clone()))?;
        let interception_policy = kept.without(|| interception::open(&mut config))?;
        Ok(Self {
            config,
            log,
            limited,
            affinities: Arc::default(),
            shutdown,
            feed,
            demand,
            follow_registry,
            own_sockets,
            interception_policy,
            conditions: Conditions::new(&observer),
            observer,
        })
    }
}

type Followed = Pin<Box<dyn Future<Output = ()> + Send>>;

fn registry(config: &Config, own_sockets: OwnSockets) -> anyhow::Result<(Feed, Demand, Followed)> {
    Ok(match (&config.discovery, &config.agent) {
        (Source::File(file), _) => {
            let (feed, follow) = discovery::watch(file)?;
            (feed, Demand::default(), Box::pin(follow))
        }
        (Source::Agent, Some(door)) => {
            let (feed, demand, follow) = discovery::xds::follow(
                &config::own(config),
                "the agent of this node",
                control::discovery(door),
            );
            (feed, demand, Box::pin(follow))
        }
        (Source::Control, _) => {
            let connect = control::own_discovery(&config.identity, own_sockets)?;
            let (feed, demand, follow) = discovery::xds::follow(&config::own(config), "control", connect);
            (feed, demand, Box::pin(follow))
        }
        (Source::Agent, None) => anyhow::bail!("registry: there is no agent to ask; set interception.agent"),
    })
}
