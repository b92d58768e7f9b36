//! What a start begins with: signals, registry, policy file, conditions of readiness. Touches nothing of the pod, and binds
//! no port.

use std::pin::Pin;
use std::sync::Arc;

use super::super::affinity::Affinities;
use super::super::config::Config;
use super::super::interception;
use super::super::limits;
use super::super::privileges::Kept;
use super::super::watchers::Conditions;
use crate::datapath::policy::PolicyFile;
use crate::discovery::{self, Feed};
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
    pub(super) follow_registry: Pin<Box<dyn Future<Output = ()> + Send>>,
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
        let (feed, follow_registry) = kept.without(|| discovery::watch(&config.discovery))?;
        let interception_policy = kept.without(|| interception::open(&mut config))?;
        Ok(Self {
            config,
            log,
            limited,
            affinities: Arc::default(),
            shutdown,
            feed,
            follow_registry: Box::pin(follow_registry),
            interception_policy,
            conditions: Conditions::new(&observer),
            observer,
        })
    }
}
