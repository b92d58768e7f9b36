//! All that goes on once the shards accept, until the proxy has drained: proof, endpoints, watchers, the offer to the proxy
//! after this one. Decides nothing about the end; `stop.rs` does.

use std::convert::Infallible;
use std::os::unix::net::UnixListener;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::config::Config;
use super::super::fixed::{Fixed, Named};
use super::super::interception::{self, Proving};
use super::super::kernel::Kernel;
use super::super::leaving::Leaving;
use super::super::phase::Phase;
use super::super::privileges::Asking;
use super::super::proving::Nonces;
use super::super::stop::{self, Lifetime};
use super::super::takeover::{self, Former};
use super::super::threads::Threads;
use super::super::{config, sight, watchers, why};
use super::identity::Identity;
use super::opened::Opened;
use crate::lifecycle::{self, Application, LogFilter};
use crate::observe::{self, Admin, LogLevel, Observer, SharedSocket};

/// The shards accept.
pub(super) struct Running {
    pub(super) threads: Threads,
    pub(super) nonces: Nonces,
    pub(super) phase_out: watch::Sender<Phase>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) replaced: watch::Receiver<bool>,
    /// For the proxy after this one.
    pub(super) offer: Option<(takeover::Offer, Named)>,
    pub(super) admin_socket: Option<SharedSocket>,
    pub(super) neighbours: Option<Asking>,
    pub(super) leaving: Option<Leaving>,
    pub(super) followed: (Option<JoinSet<()>>, JoinSet<()>),
    pub(super) identity: Identity,
    pub(super) kernel: Option<Kernel>,
    pub(super) fixed: Fixed,
    pub(super) former: Option<Former>,
}

impl Running {
    pub(super) fn prove(mut self, opened: &Opened) -> anyhow::Result<Serving> {
        let proving = interception::prove(
            self.kernel.as_ref(),
            self.neighbours.take(),
            opened.config.mode,
            opened.conditions.interception.clone(),
            self.nonces.clone(),
            &opened.observer,
        )
        .context("cannot start the thread that proves that connections get here")?;
        Ok(Serving {
            proving,
            running: self,
        })
    }
}

/// Everybody is served.
pub(super) struct Serving {
    proving: Proving,
    running: Running,
}

impl Serving {
    pub(super) async fn until_end(self, mut opened: Opened) -> anyhow::Result<()> {
        let ask = stop::Ask::default();
        let admin = self.admin(&opened, ask.clone());
        let Running {
            mut threads,
            phase_out,
            replaced,
            offer,
            admin_socket,
            leaving,
            followed,
            mut identity,
            mut kernel,
            fixed,
            former,
            ..
        } = self.running;
        let (config, observer) = (&opened.config, &opened.observer);
        let handover = kernel.as_ref().map(Kernel::handover);
        let questions = kernel.as_ref().and_then(Kernel::questions);
        if let Some(logs) = kernel.as_mut().and_then(Kernel::logs) {
            tokio::spawn(logs.run());
        }
        if let Some(kernel) = kernel {
            watchers::kernel_counters(observer, kernel);
        }
        if let Some((kernel, (offer, descriptors))) = config.datapath.as_ref().zip(offer) {
            takeover::offer(&kernel.pins, offer, descriptors);
        }
        tracing::info!(
            workload = %config.name, identity = %config.identity.id, workers = config.workers,
            intercepting = config.datapath.is_some(), mode = ?config.mode, "proxy started"
        );
        tokio::spawn(opened.follow_registry);
        tokio::spawn(watchers::registry(
            observer.clone(),
            opened.feed,
            config::own(config),
            opened.conditions.registry,
        ));
        tokio::spawn(watchers::certificate(
            observer.clone(),
            identity.svid,
            identity.status,
            opened.conditions.identity,
        ));
        let news = stop::News {
            shutdown: &mut opened.shutdown,
            asked: ask.subscribe(),
            replaced,
            threads: &mut threads,
            application: follow_application(config),
        };
        let endpoints = async {
            // Until then the owner before answers probes, who would be told otherwise that this pod is not ready.
            if let Some((former, handover)) = former.zip(handover) {
                takeover::until_ready(observer.readiness()).await;
                takeover::complete(former, handover, admin_socket.as_ref()).await;
            }
            tokio::spawn(lifecycle::notify::follow(observer.readiness().clone()));
            serve_endpoints(observer, fixed, questions, admin, &ask).await
        };
        let end = async {
            stop::follow(config.stop, news, phase_out, observer, (followed, self.proving)).await;
            // The last connections have ended just now.
            observer.finish_watches().await;
        };
        tokio::select! {
            () = end => {}
            failed = &mut identity.kept => match failed? {},
            served = endpoints => match served? {},
        }
        threads.join()?;
        if let Some(leaving) = leaving {
            leaving.leave();
        }
        tracing::info!("proxy ended");
        Ok(())
    }

    /// What the admin endpoint shows, and what it can be asked to do.
    fn admin(&self, opened: &Opened, ask: stop::Ask) -> Admin {
        let (running, config) = (&self.running, opened.config.clone());
        let (phase, shown, duck) = (running.phase.clone(), ask.clone(), ask.clone());
        let why = why::Why::new(
            &config,
            running.kernel.as_ref(),
            opened.feed.snapshots.clone(),
            running.identity.svid.clone(),
            opened.affinities.clone(),
        );
        let sight = sight::sight(
            &config,
            (running.identity.svid.clone(), running.identity.status.clone()),
            &opened.feed,
            opened.affinities.clone(),
        );
        Admin {
            observer: opened.observer.clone(),
            config: Box::new(move |caller| watchers::shown_config(&config, caller)),
            log_level: log_level(opened.log.clone()),
            why: Box::new(move |question| why.answer(question)),
            sight,
            drain: Box::new(move || ask.end("the admin endpoint")),
            lame_duck: Box::new(move || duck.lame_duck()),
            phase: Box::new(move || shown.phase(*phase.borrow()).name()),
        }
    }
}

/// Probes and metrics, and the admin endpoint. Only an error ends this.
async fn serve_endpoints(
    observer: &Observer,
    fixed: Fixed,
    questions: Option<UnixListener>,
    admin: Admin,
    ask: &stop::Ask,
) -> Result<Infallible, observe::Error> {
    let listeners = observe::Listeners {
        tcp: fixed.admin,
        socket: fixed.admin_socket,
        agent: questions,
    };
    tokio::try_join!(
        observe::serve_status(fixed.status, observer.clone()),
        observe::serve_admin(listeners, admin),
    )?;
    ask.end("the end of the endpoints");
    std::future::pending().await
}

fn log_level(log: LogFilter) -> LogLevel {
    let shown = log.clone();
    LogLevel {
        get: Box::new(move || shown.get()),
        set: Box::new(move |filter| log.set(filter)),
    }
}

/// Whether the pod's programs live, where the proxy's own life depends on it.
fn follow_application(config: &Config) -> watch::Receiver<Application> {
    let (tell, application) = watch::channel(Application::Unseen);
    if let (Lifetime::Application, Some(kernel)) = (config.stop.lifetime, &config.datapath) {
        tokio::spawn(lifecycle::follow_application(kernel.cgroup.clone(), tell));
    }
    application
}
