//! Tells the programs of listeners that they did not see begin: those that were there before them, and those that they
//! had no room for. Not of those of processes outside of the pod's cgroup, which nobody serves: no hook would show them
//! their client, and they would take it for the proxy, whose address is the pod's own.
//!
//! The programs' own counts are theirs alone, because user space cannot add to a number that they change as well; this
//! map is user space's alone. Where the two are of different moments, a port counts as listened on for a while
//! longer than it is: then the proxy accepts, and resets. A listener that the programs do not see is refused to outsiders
//! until it is found, and never served around the proxy.
//!
//! A look walks the listeners of every network namespace of the node. So there is one at the start, and after that only
//! where something asks for it ([`AppPorts::closed`], [`AppPorts::ended`]).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sidecar_ebpf::abi::{APP_SOCKET_ENTRIES, AppSocket, Counter, Inherited};
use tokio::sync::Notify;

use super::super::Error;
use super::super::map::Map;
use super::control::Control;
use super::counters::Counters;
use super::mapped::Writable;
use super::settings::Switches;
use crate::model::network::Listening;

/// From here on there may soon be no room for another socket.
const CROWD: usize = APP_SOCKET_ENTRIES / 8 * 7;
/// How often refused attempts are counted. No system call.
const COUNT: Duration = Duration::from_secs(1);

pub struct AppPorts {
    maps: AppPortMaps,
    doubts: Arc<Doubts>,
    switches: Switches,
    cgroup: PathBuf,
    /// Those that the programs do not count, by cookie.
    strangers: HashMap<u64, SocketAddr>,
    /// What the map of those has, without its zeros.
    written: HashMap<u32, Inherited>,
    /// Those of no cgroup of the pod, by cookie.
    outside: HashSet<u64>,
    /// Attempts at closed ports before the last look.
    refused: Option<u64>,
    crowded: bool,
    complete: bool,
}

pub(super) struct AppPortMaps {
    pub(super) counted: Counted,
    pub(super) inherited: Writable<Inherited>,
    pub(super) counters: Counters,
}

/// The sockets that the programs count, by cookie.
#[derive(Clone, Debug)]
pub(super) enum Counted {
    Map(Map<u64, AppSocket>),
    Control(Control),
}

impl Counted {
    /// Those of the pod, of which `listening` are all that listen now.
    fn cookies(&self, listening: &[Listening]) -> Result<HashSet<u64>, Error> {
        match self {
            Self::Map(map) => Ok(map.keys_at_once(APP_SOCKET_ENTRIES)?.into_iter().collect()),
            Self::Control(control) => {
                let mut counted = HashSet::new();
                for socket in listening {
                    if control.has_app_socket(socket.cookie)? {
                        counted.insert(socket.cookie);
                    }
                }
                Ok(counted)
            }
        }
    }
}

/// What the shards have met that only a look explains.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// A peer asked for a port on which nobody is known to listen.
    pub(super) closed: Notify,
    /// Where a listener was found nobody listens.
    pub(super) ended: Notify,
}

impl AppPorts {
    pub(super) fn new(maps: AppPortMaps, doubts: Arc<Doubts>, switches: Switches, cgroup: PathBuf) -> Self {
        // What an earlier proxy has found stays open until the first look: cleared, a port that is served would be refused.
        let all = maps.inherited.read().values();
        let written = all.filter(|(_, ports)| *ports != Inherited::NONE).collect();
        Self {
            maps,
            doubts,
            switches,
            cgroup,
            strangers: HashMap::new(),
            written,
            outside: HashSet::new(),
            refused: None,
            crowded: false,
            complete: false,
        }
    }

    /// Completes when somebody has been refused a port since the last look. Most such ports are closed; on some a program
    /// may listen that the programs have not seen begin.
    pub async fn closed(&self) {
        let mut count = tokio::time::interval(COUNT);
        loop {
            tokio::select! {
                () = self.doubts.closed.notified() => return,
                _ = count.tick() => if Some(self.refusals()) != self.refused {
                    return;
                },
            }
        }
    }

    /// Completes when an application has refused a connection on a port where a listener was found.
    pub async fn ended(&self) {
        self.doubts.ended.notified().await;
    }

    /// The programs have no room left, or will soon have none, for another listener: only a look finds it.
    pub fn is_crowded(&self) -> bool {
        self.crowded
    }

    fn refusals(&self) -> u64 {
        self.maps.counters.sum(Counter::DroppedClosed)
    }

    /// Looks at all sockets that listen, after the programs were attached. From the first time on, attempts at other ports
    /// are refused.
    ///
    /// Looks twice where there is somebody new: a socket of the programs' own that ended after the first look is not
    /// counted any more when they are asked, and would pass for a stranger until the next time.
    ///
    /// Says whether there was anything to find.
    pub fn set<E: From<Error>>(
        &mut self,
        mut look: impl FnMut() -> Result<Vec<Listening>, E>,
    ) -> Result<bool, E> {
        self.refused = Some(self.refusals());
        let listening = look()?;
        let others = self.outside.clone();
        self.leave_out(&listening);
        let mut strangers = self.uncounted(&listening)?;
        if strangers
            .keys()
            .any(|cookie| !self.strangers.contains_key(cookie))
        {
            let still: HashSet<u64> = look()?.iter().map(|socket| socket.cookie).collect();
            strangers.retain(|cookie, _| still.contains(cookie));
        }
        let is_news = strangers != self.strangers || others != self.outside;
        self.strangers = strangers;
        self.write()?;
        Ok(is_news)
    }

    /// Finds those whose sockets the programs do not see. A socket keeps its cgroup, so each is looked at once.
    fn leave_out(&mut self, listening: &[Listening]) {
        let there: HashSet<u64> = listening.iter().map(|socket| socket.cookie).collect();
        self.outside.retain(|cookie| there.contains(cookie));
        let is_new = |socket: &&Listening| {
            !socket.at.ip().to_canonical().is_loopback()
                && !self.strangers.contains_key(&socket.cookie)
                && !self.outside.contains(&socket.cookie)
        };
        let unknown: Vec<&Listening> = listening.iter().filter(is_new).collect();
        if unknown.is_empty() {
            return;
        }
        let mut inside = HashSet::new();
        collect(&self.cgroup, &mut inside);
        let of_others = |socket: &&&Listening| socket.cgroup.is_none_or(|id| !inside.contains(&id));
        let outside: Vec<&&Listening> = unknown.iter().filter(of_others).collect();
        if let Some(first) = outside.first() {
            tracing::warn!(
                listeners = outside.len(), first = %first.at, cgroup = %self.cgroup.display(),
                "programs outside of the pod's cgroup listen here: they are refused to everybody, as nothing could show \
                 them their clients; name the cgroup that holds them in interception.cgroup"
            );
        }
        self.outside.extend(outside.iter().map(|socket| socket.cookie));
    }

    fn write(&mut self) -> Result<(), Error> {
        let wanted = by_slot(&self.strangers);
        let none = self.written.keys().map(|slot| (*slot, Inherited::NONE));
        let mut all: HashMap<u32, Inherited> = none.collect();
        all.extend(&wanted);
        for (slot, ports) in all {
            if self.written.get(&slot) != Some(&ports) {
                self.maps.inherited.set(slot, &ports);
            }
        }
        self.written = wanted;
        if !self.complete {
            self.switches.change(|settings| settings.app_ports = 1)?;
            self.complete = true;
        }
        Ok(())
    }

    /// Those that the programs do not count, and that outsiders could reach.
    fn uncounted(&mut self, listening: &[Listening]) -> Result<HashMap<u64, SocketAddr>, Error> {
        let counted = self.maps.counted.cookies(listening)?;
        self.note_crowd(counted.len());
        let is_stranger = |socket: &&Listening| {
            !socket.at.ip().to_canonical().is_loopback()
                && !self.outside.contains(&socket.cookie)
                && !counted.contains(&socket.cookie)
        };
        let strangers = listening.iter().filter(is_stranger);
        Ok(strangers.map(|socket| (socket.cookie, socket.at)).collect())
    }

    fn note_crowd(&mut self, sockets: usize) {
        let crowded = sockets >= CROWD;
        if crowded && !self.crowded {
            tracing::warn!(
                sockets,
                most = APP_SOCKET_ENTRIES,
                "more sockets of the pod listen than the programs keep count of, or nearly so: outsiders are refused on a new \
                 port for up to two seconds; let fewer sockets listen"
            );
        }
        self.crowded = crowded;
    }
}

/// The inodes of a cgroup and of all below it, which are their numbers.
fn collect(cgroup: &Path, inodes: &mut HashSet<u64>) {
    // One that goes while it is looked at holds nobody.
    if let Ok(found) = fs::metadata(cgroup) {
        inodes.insert(found.ino());
    }
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), inodes);
        }
    }
}

fn by_slot(sockets: &HashMap<u64, SocketAddr>) -> HashMap<u32, Inherited> {
    let mut slots = HashMap::new();
    for at in sockets.values() {
        let (v4, v6) = families(*at);
        let ports = slots
            .entry(Inherited::place(at.port()))
            .or_insert(Inherited::NONE);
        for (is_reached, family) in [(v4, true), (v6, false)] {
            if is_reached {
                *ports = ports.with(at.port(), family);
            }
        }
    }
    slots
}

/// By which addresses of the pod a socket is reached, as the programs decide it: one on :: counts for both families,
/// though it may have asked not to.
fn families(at: SocketAddr) -> (bool, bool) {
    let ip = at.ip().to_canonical();
    let everywhere = at.is_ipv6() && ip.is_unspecified();
    (ip.is_ipv4() || everywhere, ip.is_ipv6())
}
