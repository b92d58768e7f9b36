//! Tells the programs of listeners that they did not see begin: those that were there before them, and those that they
//! had no room for. Not of those of processes outside of the pod's cgroup, which nobody serves: no hook would show them
//! their client, and they would take it for the proxy, whose address is the pod's own.
//!
//! The programs' own counts are theirs alone, because user space cannot add to a number that they change as well; this
//! map is user space's alone. Where the two are of different moments, a port counts as listened on for a while
//! longer than it is: then the proxy accepts, and resets. A listener that the programs do not see is refused to outsiders
//! until it is found, and never served around the proxy.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sidecar_ebpf::abi::{AppPort, AppSocket, map};

use super::settings::Switches;
use super::{Error, sys};
use crate::model::network::Listening;

pub struct AppPorts {
    /// The sockets that the programs count.
    counted: OwnedFd,
    inherited: OwnedFd,
    switches: Switches,
    cgroup: PathBuf,
    /// Those that are known, by cookie.
    strangers: HashMap<u64, SocketAddr>,
    /// What the map holds, by port.
    written: HashMap<u32, AppPort>,
    /// Those of no cgroup of the pod, by cookie.
    outside: HashSet<u64>,
    complete: bool,
}

impl AppPorts {
    pub(super) fn new(
        counted: OwnedFd,
        inherited: OwnedFd,
        switches: Switches,
        cgroup: PathBuf,
    ) -> Result<Self, Error> {
        // What an earlier proxy has found stays open until the first look: cleared, a port that is served would be refused.
        let written = written(&inherited).map_err(fail)?;
        Ok(Self {
            counted,
            inherited,
            switches,
            cgroup,
            strangers: HashMap::new(),
            written,
            outside: HashSet::new(),
            complete: false,
        })
    }

    /// Looks at all sockets that listen, after the programs were attached. From the first time on, attempts at other ports
    /// are refused.
    ///
    /// Looks twice where there is somebody new: a socket of the programs' own that ended after the first look is not
    /// counted any more when they are asked, and would pass for a stranger until the next time.
    pub fn set<E: From<Error>>(
        &mut self,
        mut look: impl FnMut() -> Result<Vec<Listening>, E>,
    ) -> Result<(), E> {
        let listening = look()?;
        self.leave_out(&listening);
        let mut strangers = self.uncounted(&listening).map_err(fail)?;
        if strangers
            .keys()
            .any(|cookie| !self.strangers.contains_key(cookie))
        {
            let still: HashSet<u64> = look()?.iter().map(|socket| socket.cookie).collect();
            strangers.retain(|cookie, _| still.contains(cookie));
        }
        self.write(strangers)?;
        Ok(())
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

    fn write(&mut self, strangers: HashMap<u64, SocketAddr>) -> Result<(), Error> {
        let after = by_port(&strangers);
        // What is new first: a listener must not seem to be gone because another one is.
        for (port, sockets) in &after {
            if self.written.get(port) != Some(sockets) {
                sys::map_set(self.inherited.as_fd(), port, sockets).map_err(fail)?;
                self.written.insert(*port, *sockets);
            }
        }
        let gone: Vec<u32> = self
            .written
            .keys()
            .filter(|port| !after.contains_key(port))
            .copied()
            .collect();
        for port in gone {
            remove(&self.inherited, port).map_err(fail)?;
            self.written.remove(&port);
        }
        self.strangers = strangers;
        if !self.complete {
            self.switches.change(|settings| settings.app_ports = 1)?;
            self.complete = true;
        }
        Ok(())
    }

    /// Those that the programs do not count, and that outsiders could reach.
    fn uncounted(&self, listening: &[Listening]) -> io::Result<HashMap<u64, SocketAddr>> {
        let mut uncounted = HashMap::new();
        for Listening { cookie, at, .. } in listening {
            if at.ip().to_canonical().is_loopback() || self.outside.contains(cookie) {
                continue;
            }
            match sys::map_get::<u64, AppSocket>(self.counted.as_fd(), cookie) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    uncounted.insert(*cookie, *at);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(uncounted)
    }
}

/// Whether a map of ports, of either kind, has a socket that an attempt at this address would reach.
pub(super) fn listens(ports: BorrowedFd<'_>, at: SocketAddr) -> io::Result<bool> {
    match sys::map_get::<u32, AppPort>(ports, &u32::from(at.port())) {
        Ok(sockets) => Ok(match at.ip().to_canonical() {
            IpAddr::V4(_) => sockets.v4 != 0,
            IpAddr::V6(_) => sockets.v6 != 0,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
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

fn written(map: &OwnedFd) -> io::Result<HashMap<u32, AppPort>> {
    let mut written = HashMap::new();
    let mut last = None;
    while let Some(port) = sys::map_next_key::<u32>(map.as_fd(), last.as_ref())? {
        written.insert(port, sys::map_get(map.as_fd(), &port)?);
        last = Some(port);
    }
    Ok(written)
}

fn by_port(sockets: &HashMap<u64, SocketAddr>) -> HashMap<u32, AppPort> {
    let mut ports = HashMap::new();
    for at in sockets.values() {
        let (v4, v6) = families(*at);
        let sockets = ports
            .entry(u32::from(at.port()))
            .or_insert(AppPort { v4: 0, v6: 0 });
        sockets.v4 += u64::from(v4);
        sockets.v6 += u64::from(v6);
    }
    ports
}

/// By which addresses of the pod a socket is reached, as the programs decide it: one on :: counts for both families,
/// though it may have asked not to.
fn families(at: SocketAddr) -> (bool, bool) {
    let ip = at.ip().to_canonical();
    let everywhere = at.is_ipv6() && ip.is_unspecified();
    (ip.is_ipv4() || everywhere, ip.is_ipv6())
}

fn remove(map: &OwnedFd, port: u32) -> io::Result<()> {
    match sys::map_remove(map.as_fd(), &port) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn fail(source: io::Error) -> Error {
    Error::MapIo {
        map: map::INHERITED,
        source,
    }
}
