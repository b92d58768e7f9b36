//! Warm tunnels, per peer. One pool a shard: nothing here is shared between threads.
//!
//! A tunnel belongs to one source certificate and one set of expected identities; connections that differ in
//! either never share one (wire.md 1.8).

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::hbone::client::{ConnectTo, Tunnel};
use super::hbone::{MAX_STREAMS, Stream};
use super::tls::{self, Peer};
use super::{Error, Tally, Timeouts, tcp};
use crate::identity::Svid;
use crate::model::{SpiffeId, TlsFacts};

/// An unused tunnel is closed after this long (ztunnel: 5 min).
const IDLE: Duration = Duration::from_secs(300);
/// How often the pool looks for them.
const SWEEP: Duration = Duration::from_secs(30);
/// Tunnels that streams in bulk may claim for themselves, per peer and shard; beyond that they share.
const BULK_TUNNELS: usize = 8;

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
    peers: RefCell<HashMap<Key, Tunnels>>,
}

#[derive(Default)]
struct Tunnels {
    ready: Vec<Entry>,
    /// The one dial under way; everybody who needs a tunnel waits for it.
    dialling: Option<watch::Receiver<Option<Dialled>>>,
}

#[derive(Clone)]
struct Entry {
    tunnel: Rc<Tunnel>,
    /// The certificate it was opened with.
    svid: Arc<Svid>,
    idle_sweeps: u32,
}

type Dialled = Result<Rc<Tunnel>, Error>;

impl Pool {
    pub fn new(mark: tcp::Mark, tally: Tally, limits: Timeouts) -> Self {
        Self(Rc::new(Inner {
            mark,
            tally,
            limits,
            peers: RefCell::default(),
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
        loop {
            let tunnel = match self.usable(key, svid) {
                Some(tunnel) => tunnel,
                None => {
                    waited = true;
                    self.dial(key, svid).await?
                }
            };
            match tunnel.connect(to, self.0.limits).await {
                Ok(stream) => {
                    let handshake = waited.then(|| tunnel.handshake());
                    let facts = TlsFacts {
                        reused_tunnel: !waited,
                        ..tunnel.peer().facts.clone()
                    };
                    let peer = Peer {
                        id: tunnel.peer().id.clone(),
                        facts,
                    };
                    return Ok(Connected {
                        stream,
                        peer,
                        handshake,
                    });
                }
                // A warm tunnel can be on its way out (GOAWAY, peer restarted) without our knowing. Nothing was
                // sent through it, so a fresh one is asked, once.
                Err(Error::Http2 { .. } | Error::Tls { .. }) if !waited => self.forget(key, &tunnel),
                Err(error) => return Err(error),
            }
        }
    }

    /// The tunnel with the fewest streams that has room and carries no bulk, opened with the current certificate.
    fn usable(&self, key: &Key, svid: &Arc<Svid>) -> Option<Rc<Tunnel>> {
        let mut peers = self.0.peers.borrow_mut();
        let ready = &mut peers.get_mut(key)?.ready;
        // A tunnel of an older certificate takes no new streams; its live ones run on.
        ready.retain(|e| e.tunnel.is_open() && Arc::ptr_eq(&e.svid, svid));
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
        let mut result = under_way.unwrap_or_else(|| {
            let (done, waiting) = watch::channel(None);
            self.0.peers.borrow_mut().entry(key.clone()).or_default().dialling = Some(waiting.clone());
            let (pool, key, svid) = (self.clone(), key.clone(), svid.clone());
            tokio::task::spawn_local(async move {
                let config = tls::client_config(&svid, key.expected.clone());
                let Inner {
                    mark, tally, limits, ..
                } = &*pool.0;
                let dialled = Tunnel::dial(key.gateway, config, &key.expected, mark, tally, *limits).await;
                let dialled = dialled.map(Rc::new);
                pool.finish_dial(&key, svid, &dialled);
                // Nobody may be waiting any more; the tunnel is in the pool all the same.
                let _ = done.send(Some(dialled));
            });
            waiting
        });
        match result.wait_for(Option::is_some).await {
            Ok(done) => done.clone().expect("waited for it"),
            // The shard is shutting down and has dropped the dial.
            Err(_) => Err(Error::NoIdentity),
        }
    }

    fn finish_dial(&self, key: &Key, svid: Arc<Svid>, dialled: &Dialled) {
        let mut peers = self.0.peers.borrow_mut();
        match (peers.get_mut(key), dialled) {
            (Some(tunnels), Ok(tunnel)) => {
                tunnels.dialling = None;
                tunnels.ready.push(Entry {
                    tunnel: tunnel.clone(),
                    svid,
                    idle_sweeps: 0,
                });
            }
            (Some(tunnels), Err(_)) => {
                tunnels.dialling = None;
                if tunnels.ready.is_empty() {
                    peers.remove(key);
                }
            }
            (None, _) => {}
        }
    }

    fn forget(&self, key: &Key, tunnel: &Rc<Tunnel>) {
        if let Some(tunnels) = self.0.peers.borrow_mut().get_mut(key) {
            tunnels.ready.retain(|e| !Rc::ptr_eq(&e.tunnel, tunnel));
        }
    }

    /// Closes tunnels that nobody has used for a while and those that `keep` gives up: the last handle gone, HTTP/2
    /// says GOAWAY once the last stream has ended.
    pub fn sweep(&self, keep: impl Fn(&Key) -> bool) {
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

    /// Sweeps for ever.
    pub async fn keep_clean(&self, keep: impl Fn(&Key) -> bool) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.sweep(&keep);
        }
    }
}
