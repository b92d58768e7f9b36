//! What a walk may use of its shard: the world, the certificate, tunnels, limits. Starts no walk; `mod.rs` does.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use tokio::sync::watch;

use super::super::affinity::Affinities;
use super::super::doors::Doors;
use super::super::left_alone::LeftAlone;
use super::super::limits::{Descriptors, Resources, Shared};
use super::super::live::{Inbound, Live};
use super::super::phase::{self, Phase};
use super::super::proving::Nonces;
use super::super::readings::Readings;
use super::super::tunnels::Tunnels;
use super::present::Present;
use crate::budget::Budget;
use crate::discovery::Demand;
use crate::identity::Svid;
use crate::model::{Cause, ClientAddr, OriginalDst, Outcome, Own, Party, Snapshot, SpiffeId};
use crate::observe::{Meters, ShardObserver};
use crate::policy::Mode;
use crate::route::{Unknown, Upstream};
use crate::transport::pool::Pool;
use crate::transport::tcp::{BoundPorts, Mark};
use crate::transport::{Error, Tally, Timeouts, tls};
use crate::{datapath, relay};

/// Round trips enough for peers to hear that their tunnels take no new streams. One that does not answer keeps nobody.
const FAREWELL: Duration = Duration::from_millis(500);

pub(in super::super) use super::present::Entered;

/// What the role hands to each shard's thread.
#[derive(Clone)]
pub(in super::super) struct Settings {
    pub(in super::super) id: SpiffeId,
    /// Id and addresses once more, with the name: who asks the registry about itself.
    pub(in super::super) own: Arc<Own>,
    pub(in super::super) mode: Mode,
    pub(in super::super) unknown: Unknown,
    pub(in super::super) addresses: Vec<IpAddr>,
    /// The proxy's own ports: no destination for anybody.
    pub(in super::super) own_ports: Vec<u16>,
    /// The one of them that everybody may ask.
    pub(in super::super) status_port: u16,
    pub(in super::super) hbone_port: u16,
    /// How many shards there are, and how many files the process may open: they share those.
    pub(in super::super) shards: usize,
    pub(in super::super) files: usize,
    pub(in super::super) bypass: Option<datapath::Bypass>,
    pub(in super::super) world: watch::Receiver<Arc<Snapshot>>,
    /// Asks the registry's source for what it has not told.
    pub(in super::super) demand: Demand,
    pub(in super::super) svid: watch::Receiver<Option<Arc<Svid>>>,
    pub(in super::super) phase: watch::Receiver<Phase>,
    /// Another proxy has taken the pod over.
    pub(in super::super) replaced: watch::Receiver<bool>,
    /// The slots that the listeners are in, until all shards have closed theirs.
    pub(in super::super) generation: Option<Arc<datapath::Generation>>,
    pub(in super::super) relay: relay::Limits,
    pub(in super::super) budget: Budget,
    pub(in super::super) doors: Doors,
    pub(in super::super) meters: Meters,
    pub(in super::super) limited: Arc<Shared>,
    pub(in super::super) nonces: Nonces,
    /// All shards give a client the same endpoint.
    pub(in super::super) affinities: Arc<Affinities>,
}

pub(in super::super) struct Shard {
    pub(in super::super) id: SpiffeId,
    pub(in super::super) own: Arc<Own>,
    pub(in super::super) mode: Mode,
    pub(in super::super) unknown: Unknown,
    pub(in super::super) addresses: Vec<IpAddr>,
    pub(in super::super) hbone_port: u16,
    pub(in super::super) status_port: u16,
    pub(in super::super) pool: Pool,
    pub(in super::super) mark: Mark,
    pub(in super::super) observe: ShardObserver,
    pub(in super::super) limits: Timeouts,
    pub(in super::super) relay: relay::Limits,
    pub(in super::super) budget: Budget,
    pub(in super::super) doors: Doors,
    pub(in super::super) tunnels: Rc<Tunnels>,
    pub(in super::super) meters: Meters,
    pub(in super::super) bound_ports: BoundPorts,
    pub(in super::super) inbound_tunnels: Tally,
    pub(in super::super) descriptors: Rc<Descriptors>,
    pub(in super::super) limited: Arc<Shared>,
    pub(in super::super) nonces: Nonces,
    pub(in super::super) affinities: Arc<Affinities>,
    pub(super) bypass: Option<datapath::Bypass>,
    /// When the pod's own address had no port left towards an application.
    pub(super) crowded: Cell<Option<Instant>>,
    own_ports: Vec<u16>,
    pub(super) world: watch::Receiver<Arc<Snapshot>>,
    demand: Demand,
    svid: watch::Receiver<Option<Arc<Svid>>>,
    pub(super) phase: watch::Receiver<Phase>,
    replaced: watch::Receiver<bool>,
    /// The server side of TLS, made once per certificate.
    server: RefCell<Option<(Arc<Svid>, Arc<ServerConfig>)>>,
    pub(in super::super) live: Rc<Live>,
    pub(in super::super) readings: Rc<Readings>,
    pub(super) left_alone: Rc<LeftAlone>,
    pub(super) open: Rc<Present>,
    pub(super) serving: Rc<Present>,
}

impl Shard {
    pub(in super::super) fn new(settings: Settings, observe: ShardObserver) -> io::Result<Self> {
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
            id: settings.id.clone(),
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
            affinities: settings.affinities,
            mark,
            left_alone: Rc::new(LeftAlone::new(
                settings.id,
                settings.world.clone(),
                observe.clone(),
            )),
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
            demand: settings.demand,
            svid: settings.svid,
            phase: settings.phase,
            replaced: settings.replaced,
            server: RefCell::default(),
            live: Rc::default(),
            readings: Rc::default(),
            open: Rc::default(),
            serving: Rc::default(),
        })
    }

    /// Where the proxy of an endpoint takes tunnels.
    pub(in super::super) fn gateway(&self, up: &Upstream) -> SocketAddr {
        SocketAddr::new(up.endpoint.ip(), self.hbone_port)
    }

    /// The world as it is now. Read once per connection.
    pub(in super::super) fn world(&self) -> Arc<Snapshot> {
        self.world.borrow().clone()
    }

    /// The world in which all is known about an address. `None`: nobody has said in time. Where it is known, and so for every
    /// address where the registry is a file, nothing is waited for.
    pub(in super::super) async fn world_with(&self, ip: IpAddr) -> Option<Arc<Snapshot>> {
        let world = self.world();
        if world.knows(ip) || self.addresses.contains(&ip) {
            return Some(world);
        }
        // Boxed: whoever waits pays for it, and no other.
        Box::pin(self.demand.ask(&self.world, ip)).await
    }

    /// Whether all has been told that decides about a connection from there. Until this workload and its policies are known,
    /// nobody can be let in; the addresses of a peer matter where policies ask for them.
    pub(in super::super) async fn can_judge(&self, from: IpAddr) -> bool {
        let mut world = self.world();
        if world.knows_everything() {
            return true;
        }
        if world.generation == 0 {
            match Box::pin(self.demand.begun(&self.world)).await {
                Some(begun) => world = begun,
                None => return false,
            }
        }
        let Some(own) = self.own.addresses.first() else {
            return true;
        };
        let asks = world
            .standing(&self.own, *own)
            .all()
            .any(|policy| policy.asks_source_ips());
        !asks || self.world_with(from).await.is_some()
    }

    /// Whether the world has to say more before it can judge this peer again. A peer that opens nothing new for minutes is
    /// forgotten while its connections are open, and by its address alone it would be another one to policies that ask for all
    /// of them. Then its source is asked, and the answer is a new world.
    pub(in super::super) fn has_to_learn(&self, world: &Snapshot, inbound: &Inbound) -> bool {
        let from = inbound.from.ip();
        let asks = || {
            let standing = world.standing(&self.own, inbound.destination.ip());
            standing.all().any(|policy| policy.asks_source_ips())
        };
        // Whoever has proven nothing is his address and nothing else.
        let has_to = inbound.source.is_some() && asks() && !world.knows(from);
        if has_to {
            self.demand.want(from);
        }
        has_to
    }

    /// For those who have to know when the world changes. Each change is seen from now on.
    pub(in super::super) fn worlds(&self) -> watch::Receiver<Arc<Snapshot>> {
        let mut worlds = self.world.clone();
        worlds.mark_unchanged();
        worlds
    }

    /// The world in which a destination is known that was not known before.
    pub(in super::super) async fn introduced(&self, dst: OriginalDst) -> Arc<Snapshot> {
        let mut world = self.world.clone();
        let known = |world: &Arc<Snapshot>| {
            let ip = dst.0.ip();
            world.is_vip(ip) || world.workload_by_address(ip).is_some()
        };
        match world.wait_for(known).await {
            Ok(world) => world.clone(),
            Err(_) => std::future::pending().await,
        }
    }

    /// For those who have to know when the certificate or the roots change.
    pub(in super::super) fn svids(&self) -> watch::Receiver<Option<Arc<Svid>>> {
        self.svid.clone()
    }

    /// Our certificate, if it is valid now.
    pub(in super::super) fn svid(&self) -> Result<Arc<Svid>, Error> {
        let svid = self.svid.borrow().clone();
        svid.filter(|s| s.is_valid_at(SystemTime::now()))
            .ok_or(Error::NoIdentity)
    }

    /// The server side of TLS, and when our certificate in it ends.
    pub(in super::super) fn tls_server(&self) -> Result<(Arc<ServerConfig>, SystemTime), Error> {
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

    pub(in super::super) fn is_own_port(&self, port: u16) -> bool {
        self.own_ports.contains(&port)
    }

    /// Is that one of the proxy's own listeners?
    pub(in super::super) fn is_own(&self, addr: SocketAddr) -> bool {
        self.is_own_port(addr.port()) && (self.addresses.contains(&addr.ip()) || addr.ip().is_loopback())
    }

    /// The address that the application has for others: redirected connections come from loopback.
    pub(in super::super) fn shown_client(&self, client: ClientAddr) -> SocketAddr {
        let own = self.addresses.iter().find(|a| a.is_ipv4() == client.0.is_ipv4());
        match own {
            Some(own) if client.0.ip().is_loopback() => SocketAddr::new(*own, client.0.port()),
            _ => client.0,
        }
    }

    pub(in super::super) fn enter(&self) -> Entered {
        Present::enter(&self.open)
    }

    pub(in super::super) fn enter_tunnel(&self) -> Entered {
        Present::enter(&self.serving)
    }

    /// How somebody ends who is turned away: for want of something, or because newcomers are refused.
    pub(in super::super) fn refusal(&self, lacking: Option<Resources>) -> Outcome {
        match lacking {
            Some(lacking) => {
                self.limited.report(lacking);
                Outcome::new(Party::Us, Cause::LimitReached)
            }
            None => Outcome::new(Party::Us, Cause::Shutdown),
        }
    }

    /// Newcomers are refused.
    pub(in super::super) fn is_closed(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    /// Open flows are reset.
    pub(super) fn is_cut(&self) -> bool {
        *self.phase.borrow() >= Phase::Cut
    }

    /// Another proxy serves the pod: whoever is not served here is there.
    pub(super) fn is_replaced(&self) -> bool {
        *self.replaced.borrow()
    }

    /// Completes when no flow is open, or those that are have to be cut. To be asked once newcomers are refused.
    pub(super) async fn ended(&self) {
        tokio::select! {
            () = self.served() => {}
            () = phase::reached(&self.phase, Phase::Cut) => {}
        }
    }

    /// A peer may open streams until it has heard that its tunnel takes no more (GOAWAY), and the tunnel ends with the last.
    async fn served(&self) {
        loop {
            self.open.none_left().await;
            let _ = tokio::time::timeout(FAREWELL, self.serving.none_left()).await;
            if self.open.count.get() == 0 {
                return;
            }
        }
    }

    /// Completes when newcomers are refused.
    pub(in super::super) fn closed(&self) -> impl Future<Output = ()> + use<> {
        phase::reached(&self.phase, Phase::Draining)
    }
}
