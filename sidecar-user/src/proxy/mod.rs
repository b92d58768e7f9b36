//! ROLE: the sidecar. `outbound.rs` and `inbound.rs` are the two walks; read those first.
//!
//! This file and its neighbours assemble the rooms: the control work runs here on the calling thread, each shard of
//! the data path on a thread of its own.

mod authorize;
mod bounds;
mod config;
mod contain;
mod doors;
mod existing;
mod fixed;
mod inbound;
mod interception;
mod join;
mod limits;
mod live;
mod network;
mod outbound;
mod outcome;
mod patience;
mod phase;
mod ports;
mod proving;
mod shard;
pub mod stop;
mod takeover;
mod threads;
mod trust;
mod tunnels;
mod watchers;
mod why;

use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;

use crate::budget::Budget;
use crate::datapath::PodTarget;
use crate::identity::Svid;
use crate::intercept::{Bound, Listeners, RawSockets};
use crate::lifecycle::{self, Application, LogFilter, Shutdown};
use crate::model::Snapshot;
use crate::observe::{Admin, LogLevel, Observer};
use crate::{datapath, discovery, identity, observe, relay};
pub use config::Config;
use doors::Doors;
pub use existing::{Existing, Settled, settle};
use fixed::Fixed;
use phase::Phase;
use proving::Nonces;
use shard::Truthful;
use shard::context::Settings;
use stop::Lifetime;
pub use takeover::Takeover;

/// Runs until it has drained. Blocks.
pub fn run(config: Config, log: LogFilter) -> anyhow::Result<()> {
    lifecycle::raise_file_limit();
    let pod = config.datapath.as_ref().map(PodTarget::of).transpose()?;
    if let Some(pod) = &pod {
        // Before there is another thread, so that every one of them is in the pod, with all sockets that it makes.
        pod.netns().enter()?;
    }
    let limited = limits::Shared::early(config.workers).context("cannot open /dev/null")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(control(config, pod, log, Arc::new(limited)));
    // Dropping a runtime waits for its blocking calls, one of which may hang on a file system.
    runtime.shutdown_background();
    ended
}

async fn control(
    mut config: Config,
    pod: Option<PodTarget>,
    log: LogFilter,
    limited: Arc<limits::Shared>,
) -> anyhow::Result<()> {
    let mut shutdown = Shutdown::catch()?;
    let observer = Observer::new();
    observer.figures(lifecycle::figures);
    let (feed, follow_registry) = discovery::watch(&config.discovery)?;
    let interception_policy = interception::open(&mut config)?;
    let (svid_out, svid) = watch::channel(None);
    let (identity_out, identity_status) = watch::channel(identity::Status::default());
    let conditions = watchers::Conditions::new(&observer);

    // The pod before its ports: whoever is not its only proxy has touched nothing yet. From a proxy that serves the pod come
    // the ports that only one can have.
    let owned = match &config.datapath {
        Some(kernel) => Some(takeover::own(&kernel.pins, config.takeover, &config.identity.id)?),
        None => None,
    };
    let (lease, mut former) = owned.map_or((None, None), |(lease, former)| (Some(lease), former));
    let mut fixed = Fixed::open(&config, former.as_mut())?;
    let steered = config.datapath.as_ref().map(|_| datapath::LISTENERS.into());
    let bound = Bound::all(&config.intercept, steered, config.workers, fixed.hbone.take())?;

    // Attaching comes last. The programs of a proxy that is gone redirect all the time, and a connection that arrives
    // before the filter is accepted, whether anybody answers at its destination or not.
    let whose = former.as_ref().map_or(datapath::Former::Gone, |former| {
        datapath::Former::Serving(former.generation())
    });
    let mut kernel = match config.datapath.as_ref().zip(pod).zip(lease) {
        Some(((kernel, pod), lease)) => Some(datapath::Datapath::prepare(kernel, pod, lease, whose)?),
        None => None,
    };
    let truthful = match &kernel {
        Some(kernel) => hold_syns(kernel, &bound)?,
        None => Vec::new(),
    };
    let listeners = listen(bound, kernel.as_ref())?;
    let mark = own_sockets(kernel.as_ref());
    let mut identity = pin!(identity::keep(
        config.identity.clone(),
        mark,
        svid_out,
        identity_out
    ));
    if let (Some(former), Some(kernel)) = (&former, &kernel) {
        if !kernel.is_apart() {
            kernel.session().proof().see()?;
        }
        tokio::select! {
            () = former.until_ready(svid.clone()) => {}
            failed = &mut identity => match failed? {},
            reason = shutdown.requested() => {
                tracing::info!(%reason, owner = former.pid(), "the pod was not taken over");
                return Ok(());
            }
        }
        former.lay_down()?;
    }
    let follow = || {
        let kernel = kernel.as_ref()?;
        Some(network::follow(
            kernel,
            config.addresses.clone(),
            feed.snapshots.clone(),
        ))
    };
    // Where a proxy serves, these programs know as much as its own from their first connection on.
    let following = former.as_ref().and_then(|_| follow());
    if let Some(kernel) = &kernel {
        kernel.activate()?;
    }
    // Before the first connection is delivered: only to programs that are known to be of the pod's cgroup.
    let following = following.or_else(follow);
    conditions.listeners.met();
    if let Some(kernel) = &kernel {
        let Settled { kept, destroyed } = settle(kernel, config.existing);
        let counts = &observer.meters().existing_connections;
        counts.of("kept").set(kept as i64);
        counts.of("destroyed").set(destroyed as i64);
    }
    let followed_policy = interception::follow(interception_policy, kernel.as_ref(), &observer);

    let mut truthful = truthful.into_iter();
    let listeners: Vec<(Listeners, Option<Truthful>)> =
        listeners.into_iter().map(|l| (l, truthful.next())).collect();
    let (phase_out, phase) = watch::channel(Phase::Serving);
    phase::show(&observer, phase.clone());
    let (replaced_out, replaced) = watch::channel(false);
    let takeovers = former.as_ref().map_or(0, takeover::Former::takeovers);
    takeover::show(&observer, takeovers);
    let hbone = listeners.first().map(|(listeners, _)| &listeners.hbone);
    let (descriptors, admin_socket_shared) = fixed.share(hbone)?;
    let admin_socket_here = admin_socket_shared.clone();
    let handover = kernel.as_ref().map(datapath::Datapath::handover);
    let offer = handover.clone().map(|handover| takeover::Offer {
        takeover: config.takeover,
        identity: config.identity.id.clone(),
        handover,
        admin_socket: admin_socket_shared,
        observer: observer.clone(),
        phase: phase.clone(),
        replaced: replaced_out,
        takeovers,
    });
    let (world, presented) = (feed.snapshots.clone(), svid.clone());
    let settings = Settings {
        generation: kernel
            .as_mut()
            .and_then(datapath::Datapath::generation)
            .map(Arc::new),
        replaced: replaced.clone(),
        ..shard_settings(
            &config,
            kernel.as_ref(),
            &observer,
            world,
            presented,
            phase.clone(),
            limited,
        )
    };
    bounds::show(&observer, &settings.budget, &settings.doors);
    tokio::spawn(bounds::trim(settings.budget.clone()));
    let nonces = settings.nonces.clone();
    let mut threads = threads::start(settings, listeners, &observer)?;
    let proving = interception::prove(
        kernel.as_ref(),
        config.mode,
        conditions.interception,
        nonces,
        &observer,
    )?;
    let ask = stop::Ask::default();
    let (asking, shown_ask) = (ask.clone(), ask.clone());
    let shown = config.clone();
    let why = why::Why::new(&config, kernel.as_ref(), feed.snapshots.clone(), svid.clone());
    let admin_endpoint = Admin {
        observer: observer.clone(),
        config: Box::new(move |caller| watchers::shown_config(&shown, caller)),
        log_level: log_level(log),
        why: Box::new(move |question| why.answer(question)),
        drain: Box::new(move || asking.end("the admin endpoint")),
        phase: Box::new(move || shown_ask.phase(*phase.borrow()).name()),
    };
    if let Some(logs) = kernel.as_mut().and_then(datapath::Datapath::logs) {
        tokio::spawn(logs.run());
    }
    if let Some(kernel) = kernel {
        watchers::kernel_counters(&observer, kernel);
    }
    if let Some((kernel, offer)) = config.datapath.as_ref().zip(offer) {
        takeover::offer(&kernel.pins, offer, descriptors);
    }
    tracing::info!(
        workload = %config.name, identity = %config.identity.id, workers = config.workers,
        intercepting = config.datapath.is_some(), mode = ?config.mode, "proxy started"
    );

    tokio::spawn(lifecycle::notify::follow(observer.readiness().clone()));
    tokio::spawn(follow_registry);
    tokio::spawn(watchers::registry(
        observer.clone(),
        feed,
        config::own(&config),
        conditions.registry,
    ));
    tokio::spawn(watchers::certificate(
        observer.clone(),
        svid,
        identity_status,
        conditions.identity,
    ));
    let replacing = former.zip(handover);
    let endpoints = async {
        // Until then the owner before answers probes, who would be told otherwise that this pod is not ready.
        if let Some((former, handover)) = replacing {
            takeover::until_ready(observer.readiness()).await;
            takeover::complete(former, handover, admin_socket_here.as_ref());
        }
        tokio::try_join!(
            observe::serve_status(fixed.status, observer.clone()),
            observe::serve_admin(fixed.admin, fixed.admin_socket, admin_endpoint),
        )?;
        ask.end("the end of the endpoints");
        std::future::pending::<Result<Infallible, observe::Error>>().await
    };
    let news = stop::News {
        shutdown: &mut shutdown,
        asked: ask.subscribe(),
        replaced,
        threads: &mut threads,
        application: follow_application(&config),
    };
    tokio::select! {
        () = stop::follow(config.stop, news, phase_out, &observer, (following, followed_policy, proving)) => {}
        failed = &mut identity => match failed? {},
        served = endpoints => match served? {},
    }
    threads.join()?;
    tracing::info!("proxy ended");
    Ok(())
}

fn listen(bound: Vec<Bound>, kernel: Option<&datapath::Datapath>) -> anyhow::Result<Vec<Listeners>> {
    let listeners: Vec<Listeners> = bound.into_iter().map(Bound::listen).collect::<Result<_, _>>()?;
    if let Some(kernel) = kernel {
        for (shard, listeners) in (0..).zip(&listeners) {
            let steered = listeners.steered.as_ref();
            kernel.session().steer(
                shard,
                datapath::Steered {
                    inbound: steered.map(|steered| steered.inbound.as_fd()),
                    outbound: steered.map(|steered| steered.outbound.as_fd()),
                    hbone: Some(listeners.hbone.as_fd()),
                },
            )?;
        }
    }
    Ok(listeners)
}

/// Whether the pod's programs live, where the proxy's own life depends on it.
fn follow_application(config: &Config) -> watch::Receiver<Application> {
    let (tell, application) = watch::channel(Application::Unseen);
    if let (Lifetime::Application, Some(kernel)) = (config.stop.lifetime, &config.datapath) {
        tokio::spawn(lifecycle::follow_application(kernel.cgroup.clone(), tell));
    }
    application
}

/// Prepares every shard for truthful connects: one each, or none where the raw socket cannot be had.
fn hold_syns(kernel: &datapath::Datapath, bound: &[Bound]) -> anyhow::Result<Vec<Truthful>> {
    let open = || bound.iter().map(|_| RawSockets::open()).collect();
    let raw: io::Result<Vec<RawSockets>> = kernel.pod().netns().within(open)?;
    let raw = match raw {
        Ok(raw) => raw,
        Err(error) => {
            tracing::warn!(
                %error,
                "connect() is optimistic: it succeeds before the upstream has answered, and a failure is a reset; \
                 grant CAP_NET_RAW for truthful answers"
            );
            kernel.session().set_hold(false)?;
            return Ok(Vec::new());
        }
    };
    let mut truthful = Vec::new();
    let sockets = bound.iter().filter_map(Bound::outbound);
    for ((shard, outbound), raw) in (0..).zip(sockets).zip(raw) {
        truthful.push((kernel.hold(shard, outbound)?, raw));
    }
    kernel.session().set_hold(true)?;
    Ok(truthful)
}

/// How the control work's own connections stay out of our own way.
fn own_sockets(kernel: Option<&datapath::Datapath>) -> identity::Mark {
    match kernel.map(|kernel| kernel.session().bypass()) {
        Some(bypass) => Arc::new(move |fd| bypass.mark(fd)),
        None => Arc::new(|_| Ok(())),
    }
}

fn shard_settings(
    config: &Config,
    kernel: Option<&datapath::Datapath>,
    observer: &Observer,
    world: watch::Receiver<Arc<Snapshot>>,
    svid: watch::Receiver<Option<Arc<Svid>>>,
    phase: watch::Receiver<Phase>,
    limited: Arc<limits::Shared>,
) -> Settings {
    let ports = config.intercept;
    let own = config::own(config);
    Settings {
        id: own.identity.clone(),
        addresses: own.addresses.clone(),
        own: Arc::new(own),
        mode: config.mode,
        unknown: config.unknown,
        own_ports: config::own_ports(config),
        status_port: config.observe.status_port,
        hbone_port: ports.hbone_port,
        shards: config.workers,
        files: lifecycle::file_limit(),
        bypass: kernel.map(|kernel| kernel.session().bypass()),
        world,
        svid,
        phase,
        replaced: watch::channel(false).1,
        generation: None,
        meters: observer.meters().clone(),
        limited,
        nonces: Nonces::default(),
        budget: Budget::new(config.buffer_memory),
        doors: Doors::new(lifecycle::file_limit()),
        relay: relay::Limits {
            half_closed: config.half_closed,
        },
    }
}

fn log_level(log: LogFilter) -> LogLevel {
    let shown = log.clone();
    LogLevel {
        get: Box::new(move || shown.get()),
        set: Box::new(move |filter| log.set(filter)),
    }
}
