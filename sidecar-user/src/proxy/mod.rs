//! ROLE: the sidecar. `outbound.rs` and `inbound.rs` are the two walks; read those first.
//!
//! This file and its neighbours assemble the rooms: the control work runs here on the calling thread, each shard of
//! the data path on a thread of its own.

mod authorize;
mod bounds;
mod contain;
mod doors;
mod existing;
mod holding;
mod inbound;
mod interception;
mod join;
mod limits;
mod live;
mod network;
mod outbound;
mod outcome;
mod ports;
mod proving;
mod shard;
mod trust;
mod tunnels;
mod watchers;
mod why;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use anyhow::Context;
use tokio::sync::{mpsc, watch};

use crate::budget::Budget;
use crate::identity::Svid;
use crate::intercept::{Listeners, RawSockets};
use crate::lifecycle::{self, LogFilter, Shutdown};
use crate::model::{Own, Snapshot};
use crate::observe::{Admin, AdminSocket, LogLevel, Observer};
use crate::{datapath, discovery, identity, intercept, observe, policy, relay, route};
use doors::Doors;
pub use existing::{Existing, Settled, settle};
use proving::Nonces;
use shard::{Settings, Truthful};

/// The thread of one.
type Shard = JoinHandle<io::Result<()>>;

/// Everything that a proxy needs to know, validated.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub mode: policy::Mode,
    pub unknown: route::Unknown,
    pub intercept: intercept::Config,
    pub datapath: Option<datapath::Config>,
    /// What becomes of the connections that were there before the first attachment.
    pub existing: Existing,
    /// What is intercepted, watched for changes; `None`: the default.
    pub interception_policy: Option<PathBuf>,
    pub discovery: discovery::Config,
    pub identity: identity::Config,
    pub observe: observe::Config,
    /// The most memory for buffers, in bytes.
    pub buffer_memory: usize,
    /// Shards of the data path, at least 1.
    pub workers: usize,
    /// How long open flows may go on after SIGTERM.
    pub drain: Duration,
    /// How long a half-closed connection may stay silent.
    pub half_closed: Duration,
}

/// Runs until SIGTERM or SIGINT. Blocks.
pub fn run(config: Config, log: LogFilter) -> anyhow::Result<()> {
    lifecycle::raise_file_limit();
    let limited = limits::Shared::early(config.workers).context("cannot open /dev/null")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(control(config, log, Arc::new(limited)))
}

async fn control(mut config: Config, log: LogFilter, limited: Arc<limits::Shared>) -> anyhow::Result<()> {
    let mut shutdown = Shutdown::catch()?;
    let observer = Observer::new();
    observer.figures(lifecycle::figures);
    let (feed, follow_registry) = discovery::watch(&config.discovery)?;
    let interception_policy = interception::open(&mut config)?;
    let (svid_out, svid) = watch::channel(None);
    let (identity_out, identity_status) = watch::channel(identity::Status::default());
    let conditions = watchers::Conditions::new(&observer);

    // Ports first: where another proxy runs already, nothing has been touched yet. Those that only one can have before
    // those that are shared: a listener that joins another proxy's takes part of its connections.
    let status = listen_status(config.observe.status_port)?;
    let admin = config.observe.admin.map(listen_admin).transpose()?;
    let admin_socket = config
        .observe
        .admin_socket
        .as_ref()
        .map(AdminSocket::open)
        .transpose()?
        .flatten();
    let listeners = shard::listen(&config.intercept, config.workers)?;
    conditions.listeners.met();

    let mut kernel = match &config.datapath {
        Some(kernel) => Some(attach(kernel, &listeners)?),
        None => None,
    };
    if let (Some(kernel), Some(target)) = (&kernel, &config.datapath) {
        let Settled { kept, destroyed } = settle(kernel, &target.cgroup, config.existing);
        let counts = &observer.meters().existing_connections;
        counts.of("kept").set(kept as i64);
        counts.of("destroyed").set(destroyed as i64);
    }
    let followed_policy = interception::follow(interception_policy, kernel.as_ref(), &observer);
    let mark = own_sockets(kernel.as_ref());

    let mut truthful = match &kernel {
        Some(kernel) => hold_syns(kernel, &listeners)?.into_iter(),
        None => Vec::new().into_iter(),
    };
    let listeners = listeners.into_iter().map(|l| (l, truthful.next())).collect();
    // Before the first connection is delivered: only to programs that are known to be of the pod's cgroup.
    let following = kernel
        .as_ref()
        .map(|kernel| network::follow(kernel, config.addresses.clone(), feed.snapshots.clone()));
    let (drain_out, draining) = watch::channel(false);
    let (world, presented) = (feed.snapshots.clone(), svid.clone());
    let settings = shard_settings(
        &config,
        kernel.as_ref(),
        &observer,
        world,
        presented,
        draining,
        limited,
    );
    bounds::show(&observer, &settings.budget, &settings.doors);
    tokio::spawn(bounds::trim(settings.budget.clone()));
    let nonces = settings.nonces.clone();
    let shards = start_shards(settings, listeners, &observer)?;
    let proving = interception::prove(
        kernel.as_ref(),
        config.mode,
        conditions.interception,
        nonces,
        &observer,
    )?;
    let (shards, mut shard_ended) = shards;
    let (ask_drain, mut drain_asked) = mpsc::channel::<()>(1);
    let shown = config.clone();
    let why = why::Why::new(&config, kernel.as_ref(), feed.snapshots.clone(), svid.clone());
    let admin_endpoint = Admin {
        observer: observer.clone(),
        config: Box::new(move |caller| watchers::shown_config(&shown, caller)),
        log_level: log_level(log),
        why: Box::new(move |question| why.answer(question)),
        // Asked twice, it is asked once.
        drain: Box::new(move || {
            let _ = ask_drain.try_send(());
        }),
    };
    if let Some(logs) = kernel.as_mut().and_then(datapath::Datapath::logs) {
        tokio::spawn(logs.run());
    }
    if let Some(kernel) = kernel {
        watchers::kernel_counters(&observer, kernel);
    }
    tracing::info!(
        workload = %config.name, identity = %config.identity.id, workers = config.workers,
        intercepting = config.datapath.is_some(), mode = ?config.mode, "proxy started"
    );

    tokio::spawn(follow_registry);
    tokio::spawn(watchers::registry(
        observer.clone(),
        feed,
        own(&config),
        conditions.registry,
    ));
    tokio::spawn(watchers::certificate(
        observer.clone(),
        svid,
        identity_status,
        conditions.identity,
    ));
    let endpoints = async {
        tokio::try_join!(
            observe::serve_status(status, observer.clone()),
            observe::serve_admin(admin, admin_socket, admin_endpoint),
        )
    };
    tokio::pin!(endpoints);
    let identity = identity::keep(config.identity.clone(), mark, svid_out, identity_out);
    tokio::pin!(identity);
    let reason = tokio::select! {
        signal = shutdown.requested() => signal,
        Some(()) = drain_asked.recv() => "the admin endpoint",
        Some(n) = shard_ended.recv() => {
            tracing::error!(shard = n, "a shard has ended by itself; the proxy cannot go on with a part of them");
            "the end of a shard"
        }
        failed = &mut identity => match failed? {},
        served = &mut endpoints => { served?; "the end of the endpoints" }
    };

    tracing::info!(%reason, limit = ?config.drain, "draining");
    observer.readiness().drain();
    drop((following, followed_policy, proving));
    drain_out.send_replace(true);
    let joined = tokio::task::spawn_blocking(move || join(shards));
    tokio::select! {
        ended = joined => ended??,
        signal = shutdown.requested() => tracing::warn!(signal, "second signal: open flows are cut"),
        failed = &mut identity => match failed? {},
        served = &mut endpoints => { served?; }
    }
    tracing::info!("proxy ended");
    Ok(())
}

fn attach(config: &datapath::Config, listeners: &[Listeners]) -> Result<datapath::Datapath, datapath::Error> {
    // The listeners of all shards are one SO_REUSEPORT group: naming one of them names the group.
    let first = listeners.first();
    let steered = datapath::Steered {
        inbound: first.map(|l| l.inbound.as_fd()),
        outbound: first.map(|l| l.outbound.as_fd()),
    };
    datapath::Datapath::attach(config, steered)
}

/// Prepares every shard for truthful connects: one each, or none where the raw socket cannot be had.
fn hold_syns(kernel: &datapath::Datapath, listeners: &[Listeners]) -> anyhow::Result<Vec<Truthful>> {
    let raw: io::Result<Vec<RawSockets>> = listeners.iter().map(|_| RawSockets::open()).collect();
    let raw = match raw {
        Ok(raw) => raw,
        Err(error) => {
            tracing::warn!(
                %error,
                "connect() is optimistic: it succeeds before the upstream has answered, and a failure is a reset; \
                 grant CAP_NET_RAW for truthful answers"
            );
            return Ok(Vec::new());
        }
    };
    let mut truthful = Vec::new();
    for ((n, listeners), raw) in (0..).zip(listeners).zip(raw) {
        truthful.push((kernel.hold(n, listeners.outbound.as_fd())?, raw));
    }
    kernel.set_hold(true)?;
    Ok(truthful)
}

/// How the control work's own connections stay out of our own way.
fn own_sockets(kernel: Option<&datapath::Datapath>) -> identity::Mark {
    match kernel.map(datapath::Datapath::bypass) {
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
    draining: watch::Receiver<bool>,
    limited: Arc<limits::Shared>,
) -> Settings {
    let ports = config.intercept;
    let own = own(config);
    Settings {
        id: own.identity.clone(),
        addresses: own.addresses.clone(),
        own: Arc::new(own),
        mode: config.mode,
        unknown: config.unknown,
        own_ports: own_ports(config),
        status_port: config.observe.status_port,
        hbone_port: ports.hbone_port,
        shards: config.workers,
        files: lifecycle::file_limit(),
        bypass: kernel.map(datapath::Datapath::bypass),
        world,
        svid,
        draining,
        drain: config.drain,
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

fn start_shards(
    settings: Settings,
    listeners: Vec<(Listeners, Option<Truthful>)>,
    observer: &Observer,
) -> anyhow::Result<(Vec<Shard>, mpsc::UnboundedReceiver<usize>)> {
    let (tell_end, ended) = mpsc::unbounded_channel();
    let mut shards = Vec::new();
    for (n, (listeners, truthful)) in listeners.into_iter().enumerate() {
        let (settings, observe) = (settings.clone(), observer.shard(n));
        let end = Ended(n, tell_end.clone());
        let thread = thread::Builder::new()
            .name(format!("shard-{n}"))
            .spawn(move || {
                let _end = end;
                shard::run(settings, listeners, truthful, observe)
            })
            .with_context(|| format!("cannot start the thread of shard {n}"))?;
        shards.push(thread);
    }
    Ok((shards, ended))
}

/// Tells of a shard's end, however it ends.
struct Ended(usize, mpsc::UnboundedSender<usize>);

impl Drop for Ended {
    fn drop(&mut self) {
        // Nobody asks once the proxy drains.
        let _ = self.1.send(self.0);
    }
}

/// Who this proxy stands beside, as its configuration says.
fn own(config: &Config) -> Own {
    Own {
        name: config.name.clone(),
        identity: config.identity.id.clone(),
        addresses: config.addresses.iter().map(IpAddr::to_canonical).collect(),
    }
}

/// On which the proxy itself listens.
fn own_ports(config: &Config) -> Vec<u16> {
    let ports = config.intercept;
    let mut own = vec![
        ports.outbound_port,
        ports.inbound_port,
        ports.hbone_port,
        config.observe.status_port,
    ];
    own.extend(config.observe.admin.map(|a| a.port()));
    own
}

fn join(shards: Vec<Shard>) -> anyhow::Result<()> {
    for (n, shard) in shards.into_iter().enumerate() {
        shard
            .join()
            .map_err(|_| anyhow::anyhow!("shard {n} panicked"))?
            .with_context(|| format!("shard {n}"))?;
    }
    Ok(())
}

fn listen_status(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).with_context(|| {
        format!("cannot listen on port {port} for metrics and probes; set listen.status to a free one")
    })
}

fn listen_admin(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).with_context(|| {
        format!("cannot listen on {addr} for the admin endpoint; set listen.admin to a free one")
    })
}

fn log_level(log: LogFilter) -> LogLevel {
    let shown = log.clone();
    LogLevel {
        get: Box::new(move || shown.get()),
        set: Box::new(move |filter| log.set(filter)),
    }
}
