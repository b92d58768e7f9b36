//! Warm tunnels, per peer. One pool a shard: nothing here is shared between threads.
//!
//! A tunnel belongs to one source certificate and one set of expected identities; connections that differ in
//! either never share one (wire.md 1.8).

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use super::hbone::client::{ConnectTo, Life, Tunnel};
use super::hbone::{MAX_STREAMS, Stream};
use super::tls::{self, Peer};
use super::{Error, Tally, Timeouts, tcp};
use crate::budget::Budget;
use crate::identity::Svid;
use crate::model::SpiffeId;

/// An unused tunnel is closed after this long (ztunnel: 5 min).
const IDLE: Duration = Duration::from_secs(300);
/// How often the pool looks for them.
const SWEEP: Duration = Duration::from_secs(30);
/// Tunnels that streams in bulk may claim for themselves, per peer and shard; beyond that they share.
const BULK_TUNNELS: usize = 8;
/// A gateway that nobody has asked for as long is asked as if it had never been absent.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// How often a stream that the peer refused unprocessed is asked for again.
const REFUSALS: u32 = 3;

/// Whom a tunnel leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The peer's HBONE port.
    pub gateway: SocketAddr,
    /// The identities it may prove.
    pub expected: Vec<SpiffeId>,
    /// The registry's key of the workload behind it: an address that is given to another pod gets new tunnels
    /// (ztunnel#1637).
    pub workload: Arc<str>,
    /// The interface that the tunnel goes out by, where the application has chosen one.
    pub device: Option<u32>,
}

/// A stream to the peer's application, and what is known of the tunnel that carries it.
#[derive(Debug)]
pub struct Connected {
    pub stream: Stream,
    pub peer: Peer,
    /// Set when this connection waited for the handshake.
    pub handshake: Option<Duration>,
}

/// Dials and keeps tunnels. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Rc<Inner>);

struct Inner {
    mark: tcp::Mark,
    tally: Tally,
    limits: Timeouts,
    budget: Budget,
    peers: RefCell<HashMap<Key, Tunnels>>,
    /// Gateways that nobody answers for, since when, and when they were asked last.
    absent: RefCell<HashMap<SocketAddr, Absence>>,
    /// All that are driven, those included that take no new streams.
    lives: RefCell<Vec<Weak<Life>>>,
}

#[derive(Default)]
struct Tunnels {
    ready: Vec<Entry>,
    /// The one dial under way; everybody who needs a tunnel waits for it.
    dialling: Option<Dial>,
}

#[derive(Clone)]
struct Entry {
    tunnel: Rc<Tunnel>,
    /// The certificate it was opened with.
    svid: Arc<Svid>,
    idle_sweeps: u32,
}

struct Absence {
    since: Instant,
    asked: Instant,
}

type Dialled = Result<(), Error>;

/// A dial under way, with the certificate that it proves.
#[derive(Clone)]
struct Dial {
    svid: Arc<Svid>,
    result: watch::Receiver<Option<Dialled>>,
}

impl Pool {
    pub fn new(mark: tcp::Mark, tally: Tally, limits: Timeouts, budget: Budget) -> Self {
        Self(Rc::new(Inner {
            mark,
            tally,
            limits,
            budget,
            peers: RefCell::default(),
            absent: RefCell::default(),
            lives: RefCell::default(),
        }))
    }

    /// Tunnels open now.
    pub fn open_tunnels(&self) -> usize {
        self.0
            .peers
            .borrow()
            .values()
            .flat_map(|t| &t.ready)
            .filter(|e| e.tunnel.is_open())
            .count()
    }

    /// Asks the peer's proxy for a connection to its application.
    pub async fn connect(&self, key: &Key, svid: &Arc<Svid>, to: &ConnectTo<'_>) -> Result<Connected, Error> {
        let mut waited = false;
        let mut refused = 0;
        loop {
            let Some(tunnel) = self.usable(key, svid) else {
                waited = true;
                self.dial(key, svid).await?;
                // Many may have waited for this dial, more than one tunnel takes: those who find it full, dial again.
                continue;
            };
            match tunnel.connect(to, self.0.limits).await {
                Ok(stream) => {
                    let handshake = waited.then(|| tunnel.handshake());
                    let mut peer = tunnel.peer().clone();
                    peer.facts.reused_tunnel = !waited;
                    return Ok(Connected {
                        stream,
                        peer,
                        handshake,
                    });
                }
                // Nothing was processed (RFC 9113, 8.7): the peer's limit was lowered, or reached by others.
                Err(error) if error.is_refused_stream() && refused < REFUSALS => refused += 1,
                // A warm tunnel can be on its way out (GOAWAY, peer restarted) without our knowing. Nothing was
                // sent through it, so a fresh one is asked, once.
                Err(Error::Http2 { .. } | Error::Tls { .. }) if !waited => self.forget(key, &tunnel),
                Err(error) => {
                    if matches!(error, Error::TimedOut { .. }) {
                        // Whoever comes next must not wait in a dead tunnel, too.
                        self.forget(key, &tunnel);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// How long every dial to this gateway has found nobody there, where the last one did.
    pub fn absent_for(&self, gateway: SocketAddr) -> Option<Duration> {
        let now = Instant::now();
        let absent = self.0.absent.borrow();
        let absence = absent.get(&gateway).filter(|absence| absence.is_known(now))?;
        Some(now - absence.since)
    }

    fn note_presence(&self, gateway: SocketAddr, dialled: &Result<Tunnel, Error>) {
        let now = Instant::now();
        let mut absent = self.0.absent.borrow_mut();
        match dialled {
            Err(error) if error.is_absence() => {
                let fresh = Absence {
                    since: now,
                    asked: now,
                };
                let absence = absent.entry(gateway).or_insert(fresh);
                if !absence.is_known(now) {
                    absence.since = now;
                }
                absence.asked = now;
            }
            _ => drop(absent.remove(&gateway)),
        }
    }

    /// The tunnel with the fewest streams that has room and carries no bulk, opened with the current certificate.
    fn usable(&self, key: &Key, svid: &Arc<Svid>) -> Option<Rc<Tunnel>> {
        let mut peers = self.0.peers.borrow_mut();
        let ready = &mut peers.get_mut(key)?.ready;
        // A tunnel of an older certificate takes no new streams; its live ones run on.
        let now = SystemTime::now();
        ready.retain(|e| e.tunnel.is_open() && Arc::ptr_eq(&e.svid, svid) && now < e.tunnel.peer().expires);
        let crowded = ready.len() >= BULK_TUNNELS;
        let entry = ready
            .iter_mut()
            .filter(|e| e.tunnel.streams() < e.tunnel.max_streams().min(MAX_STREAMS as usize))
            .filter(|e| crowded || e.tunnel.bulk_streams() == 0)
            .min_by_key(|e| (e.tunnel.bulk_streams(), e.tunnel.streams()))?;
        entry.idle_sweeps = 0;
        Some(entry.tunnel.clone())
    }

    /// Waits for the dial that is under way, or begins one. It goes on when the one who began it goes away.
    async fn dial(&self, key: &Key, svid: &Arc<Svid>) -> Dialled {
        let under_way = self.0.peers.borrow().get(key).and_then(|t| t.dialling.clone());
        let mut result = match under_way {
            // One that has panicked has no sender any more, and would fail everybody who comes.
            Some(dial) if Arc::ptr_eq(&dial.svid, svid) && dial.result.has_changed().is_ok() => dial.result,
            _ => self.begin_dial(key, svid),
        };
        match result.wait_for(Option::is_some).await {
            Ok(done) => done.clone().expect("it was waited for"),
            Err(_) => Err(Error::Closed { addr: key.gateway }),
        }
    }

    fn begin_dial(&self, key: &Key, svid: &Arc<Svid>) -> watch::Receiver<Option<Dialled>> {
        let (done, result) = watch::channel(None);
        let dial = Dial {
            svid: svid.clone(),
            result: result.clone(),
        };
        self.0.peers.borrow_mut().entry(key.clone()).or_default().dialling = Some(dial);
        let (pool, key, svid) = (self.clone(), key.clone(), svid.clone());
        tokio::task::spawn_local(async move {
            let config = tls::client_config(&svid, key.expected.clone());
            let Inner {
                mark,
                tally,
                limits,
                budget,
                ..
            } = &*pool.0;
            let out_by = (mark, key.device);
            let within = (*limits, budget);
            let dialled = Tunnel::dial(key.gateway, config, &key.expected, out_by, tally, within).await;
            // Nobody may be waiting any more; the tunnel is in the pool all the same.
            let _ = done.send(Some(pool.finish_dial(&key, svid, dialled)));
        });
        result
    }

    fn finish_dial(&self, key: &Key, svid: Arc<Svid>, dialled: Result<Tunnel, Error>) -> Dialled {
        self.note_presence(key.gateway, &dialled);
        let mut peers = self.0.peers.borrow_mut();
        let tunnels = peers.entry(key.clone()).or_default();
        // A renewal may have begun another dial meanwhile.
        tunnels.dialling.take_if(|dial| Arc::ptr_eq(&dial.svid, &svid));
        let outcome = match dialled {
            Ok(tunnel) if tunnel.is_open() && SystemTime::now() < tunnel.peer().expires => {
                let mut lives = self.0.lives.borrow_mut();
                lives.retain(|life| life.strong_count() > 0);
                lives.push(tunnel.life());
                tunnels.ready.push(Entry {
                    tunnel: Rc::new(tunnel),
                    svid,
                    idle_sweeps: 0,
                });
                Ok(())
            }
            // Gone before anybody could use it: an error, or those who wait would dial for ever.
            Ok(_) => Err(Error::Closed { addr: key.gateway }),
            Err(error) => Err(error),
        };
        if tunnels.ready.is_empty() && tunnels.dialling.is_none() {
            peers.remove(key);
        }
        outcome
    }

    fn forget(&self, key: &Key, tunnel: &Rc<Tunnel>) {
        if let Some(tunnels) = self.0.peers.borrow_mut().get_mut(key) {
            tunnels.ready.retain(|e| !Rc::ptr_eq(&e.tunnel, tunnel));
        }
    }

    /// Closes tunnels that nobody has used for a while and those that `keep` gives up: the last handle gone, HTTP/2
    /// says GOAWAY once the last stream has ended.
    pub fn sweep(&self, keep: impl Fn(&Key) -> bool) {
        let now = Instant::now();
        self.0
            .absent
            .borrow_mut()
            .retain(|_, absence| absence.is_known(now));
        self.0.peers.borrow_mut().retain(|key, tunnels| {
            tunnels.ready.retain_mut(|e| {
                e.idle_sweeps = if e.tunnel.streams() == 0 {
                    e.idle_sweeps + 1
                } else {
                    0
                };
                e.tunnel.is_open() && SWEEP * e.idle_sweeps < IDLE && keep(key)
            });
            !tunnels.ready.is_empty() || tunnels.dialling.is_some()
        });
    }

    /// Ends the tunnels whose peers this certificate's roots do not lead to, and says how many.
    pub fn distrust(&self, svid: &Svid) -> usize {
        let lives: Vec<Rc<Life>> = self.0.lives.borrow().iter().filter_map(Weak::upgrade).collect();
        let distrusted = lives.iter().filter(|life| !life.peer().is_trusted_by(svid));
        distrusted.map(|life| life.distrust()).count()
    }

    /// Gives up every tunnel. Those without streams say GOAWAY and close at once.
    pub fn close(&self) {
        self.0.peers.borrow_mut().clear();
    }

    /// Sweeps for ever.
    pub async fn keep_clean(&self, keep: impl Fn(&Key) -> bool) {
        loop {
            tokio::time::sleep(SWEEP).await;
            // This runs in the shard's own future: a bug met here must not end the shard.
            let _ = catch_unwind(AssertUnwindSafe(|| self.sweep(&keep)));
        }
    }
}

impl Absence {
    fn is_known(&self, now: Instant) -> bool {
        now - self.asked < FORGOTTEN
    }
}
