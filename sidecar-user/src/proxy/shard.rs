//! One shard of the data path: a thread with a runtime of its own, its listeners and its tunnels. A connection lives
//! and dies on one shard; only snapshots come in from outside.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::contain::{contained, restarted};
use super::doors::Doors;
use super::holding::Holding;
use super::limits::{Arrival, Descriptors, Resources, Shared};
use super::live::Live;
use super::outbound::Ready;
use super::proving::Nonces;
use super::stop::{self, Phase};
use super::tunnels::Tunnels;
use super::{authorize, inbound, outbound, trust};
use crate::budget::Budget;
use crate::datapath::{Attempts, Hold};
use crate::identity::Svid;
use crate::intercept::{Listeners, RawSockets};
use crate::model::{Cause, ClientAddr, OriginalDst, Outcome, Own, Party, Snapshot, SpiffeId};
use crate::observe::{Meters, ShardObserver};
use crate::policy::Mode;
use crate::route::{Unknown, Upstream};
use crate::transport::pool::Pool;
use crate::transport::tcp::{BoundPorts, Mark};
use crate::transport::{Error, Tally, Timeouts, tls};
use crate::{datapath, relay};
use present::Present;

pub(super) use present::Entered;

/// After a failed accept (no memory left, say) the listener rests, so that the shard can free some.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How often held connections are looked over whose end may have been missed.
const HOLDING_LOOK: Duration = Duration::from_secs(5);

/// For the last words of a shard that is done.
const GOODBYE: Duration = Duration::from_millis(500);

/// What the role hands to each shard's thread.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) id: SpiffeId,
    /// Id and addresses once more, with the name: who asks the registry about itself.
    pub(super) own: Arc<Own>,
    pub(super) mode: Mode,
    pub(super) unknown: Unknown,
    pub(super) addresses: Vec<IpAddr>,
    /// The proxy's own ports: no destination for anybody.
    pub(super) own_ports: Vec<u16>,
    /// The one of them that everybody may ask.
    pub(super) status_port: u16,
    pub(super) hbone_port: u16,
    /// How many shards there are, and how many files the process may open: they share those.
    pub(super) shards: usize,
    pub(super) files: usize,
    pub(super) bypass: Option<datapath::Bypass>,
    pub(super) world: watch::Receiver<Arc<Snapshot>>,
    pub(super) svid: watch::Receiver<Option<Arc<Svid>>>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) relay: relay::Limits,
    pub(super) budget: Budget,
    pub(super) doors: Doors,
    pub(super) meters: Meters,
    pub(super) limited: Arc<Shared>,
    pub(super) nonces: Nonces,
}

pub(super) struct Shard {
    pub(super) id: SpiffeId,
    pub(super) own: Arc<Own>,
    pub(super) mode: Mode,
    pub(super) unknown: Unknown,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) hbone_port: u16,
    pub(super) status_port: u16,
    pub(super) pool: Pool,
    pub(super) mark: Mark,
    pub(super) observe: ShardObserver,
    pub(super) limits: Timeouts,
    pub(super) relay: relay::Limits,
    pub(super) budget: Budget,
    pub(super) doors: Doors,
    pub(super) tunnels: Rc<Tunnels>,
    pub(super) meters: Meters,
    pub(super) bound_ports: BoundPorts,
    pub(super) inbound_tunnels: Tally,
    pub(super) descriptors: Rc<Descriptors>,
    pub(super) limited: Arc<Shared>,
    pub(super) nonces: Nonces,
    bypass: Option<datapath::Bypass>,
    /// When the pod's own address had no port left towards an application.
    crowded: Cell<Option<Instant>>,
    own_ports: Vec<u16>,
    world: watch::Receiver<Arc<Snapshot>>,
    svid: watch::Receiver<Option<Arc<Svid>>>,
    phase: watch::Receiver<Phase>,
    /// The server side of TLS, made once per certificate.
    server: RefCell<Option<(Arc<Svid>, Arc<ServerConfig>)>>,
    /// Where SYNs are held until their upstream has answered.
    holding: Option<Rc<Holding<Ready>>>,
    pub(super) live: Rc<Live>,
    open: Rc<Present>,
    serving: Rc<Present>,
}

impl Shard {
    fn new(
        settings: Settings,
        observe: ShardObserver,
        holding: Option<Rc<Holding<Ready>>>,
    ) -> io::Result<Self> {
        let descriptors = Rc::new(Descriptors::new(settings.limited.clone())?);
        let (bypass, admission) = (settings.bypass.clone(), descriptors.clone());
        let mark: Mark = Rc::new(move |fd| {
            admission.admit(fd)?;
            match &bypass {
                Some(bypass) => bypass.mark(fd),
                // Nothing is attached, so nothing would come back to us.
                None => Ok(()),
            }
        });
        let limits = Timeouts::default();
        Ok(Self {
            id: settings.id,
            own: settings.own,
            mode: settings.mode,
            unknown: settings.unknown,
            addresses: settings.addresses,
            hbone_port: settings.hbone_port,
            status_port: settings.status_port,
            pool: Pool::new(
                mark.clone(),
                Rc::new(settings.meters.outbound_tunnels()),
                limits,
                settings.budget.clone(),
            ),
            bound_ports: BoundPorts::new(settings.shards),
            inbound_tunnels: Rc::new(settings.meters.inbound_tunnels()),
            descriptors,
            limited: settings.limited,
            nonces: settings.nonces,
            mark,
            observe,
            limits,
            relay: settings.relay,
            tunnels: Rc::new(Tunnels::new(settings.budget.total(), settings.shards)),
            budget: settings.budget,
            doors: settings.doors,
            meters: settings.meters,
            bypass: settings.bypass,
            crowded: Cell::default(),
            own_ports: settings.own_ports,
            world: settings.world,
            svid: settings.svid,
            phase: settings.phase,
            server: RefCell::default(),
            holding,
            live: Rc::default(),
            open: Rc::default(),
            serving: Rc::default(),
        })
    }

    /// The world as it is now. Read once per connection.
    /// Where the proxy of an endpoint takes tunnels.
    pub(super) fn gateway(&self, up: &Upstream) -> SocketAddr {
        SocketAddr::new(up.endpoint.ip(), self.hbone_port)
    }

    pub(super) fn world(&self) -> Arc<Snapshot> {
        self.world.borrow().clone()
    }

    /// For those who have to know when the world changes. Each change is seen from now on.
    pub(super) fn worlds(&self) -> watch::Receiver<Arc<Snapshot>> {
        let mut worlds = self.world.clone();
        worlds.mark_unchanged();
        worlds
    }

    /// The world in which a destination is known that was not known before.
    pub(super) async fn introduced(&self, dst: OriginalDst) -> Arc<Snapshot> {
        let mut world = self.world.clone();
        let known = |world: &Arc<Snapshot>| {
            let ip = dst.0.ip();
            world.service_by_vip(ip).is_some() || world.workload_by_address(ip).is_some()
        };
        match world.wait_for(known).await {
            Ok(world) => world.clone(),
            Err(_) => std::future::pending().await,
        }
    }

    /// For those who have to know when the certificate or the roots change.
    pub(super) fn svids(&self) -> watch::Receiver<Option<Arc<Svid>>> {
        self.svid.clone()
    }

    /// Our certificate, if it is valid now.
    pub(super) fn svid(&self) -> Result<Arc<Svid>, Error> {
        let svid = self.svid.borrow().clone();
        svid.filter(|s| s.is_valid_at(SystemTime::now()))
            .ok_or(Error::NoIdentity)
    }

    /// The server side of TLS, and when our certificate in it ends.
    pub(super) fn tls_server(&self) -> Result<(Arc<ServerConfig>, SystemTime), Error> {
        let svid = self.svid()?;
        let end = svid.not_after();
        let mut cached = self.server.borrow_mut();
        match &*cached {
            Some((of, config)) if Arc::ptr_eq(of, &svid) => Ok((config.clone(), end)),
            _ => {
                let config = tls::server_config(&svid).map_err(|error| {
                    tracing::error!(%error, "the trust bundle cannot be used");
                    Error::NoIdentity
                })?;
                *cached = Some((svid, config.clone()));
                Ok((config, end))
            }
        }
    }

    pub(super) fn is_own_port(&self, port: u16) -> bool {
        self.own_ports.contains(&port)
    }

    /// Is that one of the proxy's own listeners?
    pub(super) fn is_own(&self, addr: SocketAddr) -> bool {
        self.is_own_port(addr.port()) && (self.addresses.contains(&addr.ip()) || addr.ip().is_loopback())
    }

    /// The address that the application has for others: redirected connections come from loopback.
    pub(super) fn shown_client(&self, client: ClientAddr) -> SocketAddr {
        let own = self.addresses.iter().find(|a| a.is_ipv4() == client.0.is_ipv4());
        match own {
            Some(own) if client.0.ip().is_loopback() => SocketAddr::new(*own, client.0.port()),
            _ => client.0,
        }
    }

    pub(super) fn holding(&self) -> Option<&Rc<Holding<Ready>>> {
        self.holding.as_ref()
    }

    pub(super) fn enter(&self) -> Entered {
        Present::enter(&self.open)
    }

    pub(super) fn enter_tunnel(&self) -> Entered {
        Present::enter(&self.serving)
    }

    /// How somebody ends who is turned away: for want of something, or because newcomers are refused.
    pub(super) fn refusal(&self, lacking: Option<Resources>) -> Outcome {
        match lacking {
            Some(lacking) => {
                self.limited.report(lacking);
                Outcome::new(Party::Us, Cause::LimitReached)
            }
            None => Outcome::new(Party::Us, Cause::Shutdown),
        }
    }

    /// Newcomers are refused.
    pub(super) fn is_closed(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    /// Completes when newcomers are refused.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + use<> {
        stop::reached(&self.phase, Phase::Draining)
    }
}

/// What a shard needs to hold SYNs.
pub(super) type Truthful = (Hold, RawSockets);

/// The shard's thread. Ends when the proxy drains and no flow is open, or when it is cut.
pub(super) fn run(
    settings: Settings,
    listeners: Listeners,
    truthful: Option<Truthful>,
    observe: ShardObserver,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async move {
        let (attempts, holding) = match truthful {
            Some((hold, raw)) => {
                let (attempts, approvals) = hold.start()?;
                (
                    Some(attempts),
                    Some(Rc::new(Holding::new(
                        approvals,
                        raw,
                        settings.shards,
                        settings.files,
                    ))),
                )
            }
            None => (None, None),
        };
        let shard = Rc::new(Shard::new(settings, observe, holding)?);
        let (outbound, inbound) = match listeners.steered {
            Some(steered) => (Some(steered.outbound), Some(steered.inbound)),
            None => (None, None),
        };
        let outbound = outbound.map(TcpListener::from_std).transpose()?;
        let inbound = inbound.map(TcpListener::from_std).transpose()?;
        let hbone = TcpListener::from_std(listeners.hbone)?;
        let applications = async {
            let admitted = async {
                let admitted = accept_steered(&shard, outbound, outbound::serve);
                if shard.holding.is_some() {
                    // Held connections come in by this listener until the end. A newcomer is refused by its SYN.
                    return admitted.await;
                }
                tokio::select! {
                    () = admitted => {}
                    () = shard.closed() => {}
                }
                std::future::pending().await
            };
            tokio::select! {
                () = admitted => {}
                () = watch_attempts(&shard, attempts) => {}
            }
        };
        let strangers = accept_steered(&shard, inbound, inbound::plaintext);
        let peers = accept(&shard, hbone, inbound::hbone);
        let (judging, trusting) = (shard.clone(), shard.clone());
        restarted(move || authorize::follow(judging.clone()));
        restarted(move || trust::follow(trusting.clone()));
        let pool = shard.pool.clone();
        let world = shard.world.clone();
        let clean = pool.keep_clean(|key| world.borrow().is_at(&key.workload, key.gateway.ip()));
        tokio::pin!(applications);
        tokio::select! {
            () = &mut applications => {}
            ((), ()) = async { tokio::join!(strangers, peers) } => {}
            () = clean => {}
            () = shard.closed() => {}
        }
        // The inbound listeners are closed now.
        tokio::select! {
            () = &mut applications => {}
            () = shard.open.none_left() => {}
            () = stop::reached(&shard.phase, Phase::Cut) => {}
        }
        shard.live.cut_all(Outcome::new(Party::Us, Cause::Shutdown));
        if let Some(holding) = &shard.holding {
            outbound::let_go(holding);
        }
        shard.pool.close();
        // Resets, last GOAWAYs and records of flows need a moment, and nobody's answer.
        let goodbye = async {
            shard.open.none_left().await;
            shard.serving.none_left().await;
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        Ok(())
    })
}

/// Follows the connections that are not accepted yet. Never ends.
async fn watch_attempts(shard: &Rc<Shard>, attempts: Option<Attempts>) {
    let (Some(mut attempts), Some(holding)) = (attempts, &shard.holding) else {
        return std::future::pending().await;
    };
    let mut look = tokio::time::interval(HOLDING_LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let news = attempts.next(|attempt| contained(|| outbound::attempt(shard, holding, attempt)));
        tokio::select! {
            read = news => if let Err(error) = read {
                tracing::error!(%error, "held connections cannot be followed; they time out");
                return std::future::pending().await;
            },
            _ = look.tick() => for (pair, sequence) in holding.doubtful() {
                contained(|| outbound::gone(holding, pair, sequence));
            },
        }
    }
}

/// Where the kernel brings nothing there is no listener, and nobody comes.
async fn accept_steered<F>(
    shard: &Rc<Shard>,
    listener: Option<TcpListener>,
    walk: impl Fn(Rc<Shard>, Arrival) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    match listener {
        Some(listener) => accept(shard, listener, walk).await,
        None => std::future::pending().await,
    }
}

async fn accept<F>(shard: &Rc<Shard>, listener: TcpListener, walk: impl Fn(Rc<Shard>, Arrival) -> F)
where
    F: Future<Output = ()> + 'static,
{
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shard.descriptors.restocked(), if shard.descriptors.is_lent() => continue,
        };
        match accepted {
            Ok((stream, peer)) => contained(|| {
                let arrival = shard.descriptors.arrival(stream, ClientAddr::new(peer));
                tokio::task::spawn_local(walk(shard.clone(), arrival));
            }),
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                shard.limited.report(Resources::of(&error));
                let Some(arrival) = shard.descriptors.last_resort(&listener).await else {
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                };
                tokio::task::spawn_local(walk(shard.clone(), arrival));
                // It is turned away meanwhile.
                tokio::task::yield_now().await;
                shard.descriptors.restock();
            }
        }
    }
}

/// Errors of the one connection that was to be accepted, not of the listener.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

mod application;
mod present;
#[cfg(test)]
mod tests;
