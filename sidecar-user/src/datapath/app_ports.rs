//! Tells the programs of listeners that they did not see begin: those that were there before them, those of processes
//! outside of the pod's cgroup, and those that they had no room for.
//!
//! The programs' own counts are theirs alone, because user space cannot add to a number that they change as well; this
//! map is user space's alone. Where the two are of different moments, a port counts as listened on for a while
//! longer than it is: then the proxy accepts, and resets. A listener that the programs do not see is refused to outsiders
//! until it is found, and never served around the proxy.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use sidecar_ebpf::abi::{AppPort, AppSocket, map};

use super::settings::Switches;
use super::{Error, sys};
use crate::model::network::Listening;

pub struct AppPorts {
    /// The sockets that the programs count.
    counted: OwnedFd,
    inherited: OwnedFd,
    switches: Switches,
    written: HashMap<u32, AppPort>,
    complete: bool,
}

impl AppPorts {
    pub(super) fn new(counted: OwnedFd, inherited: OwnedFd, switches: Switches) -> Result<Self, Error> {
        // What an earlier proxy has found may have ended since.
        sys::map_clear::<u32>(inherited.as_fd()).map_err(fail)?;
        Ok(Self {
            counted,
            inherited,
            switches,
            written: HashMap::new(),
            complete: false,
        })
    }

    /// All sockets that listen now, found after the programs were attached. From the first time on, attempts at other
    /// ports are refused.
    pub fn set(&mut self, listening: &[Listening]) -> Result<(), Error> {
        let inherited = self.inherited(listening).map_err(fail)?;
        // What is new first: a listener must not seem to be gone because another one is.
        for (port, sockets) in &inherited {
            if self.written.get(port) != Some(sockets) {
                sys::map_set(self.inherited.as_fd(), port, sockets).map_err(fail)?;
            }
        }
        for port in self.written.keys().filter(|port| !inherited.contains_key(port)) {
            remove(&self.inherited, *port).map_err(fail)?;
        }
        self.written = inherited;
        if !self.complete {
            self.switches.change(|settings| settings.app_ports = 1)?;
            self.complete = true;
        }
        Ok(())
    }

    /// Those that the programs do not count, by port. One of theirs that has ended since it was found is among them,
    /// until the next time.
    fn inherited(&self, listening: &[Listening]) -> io::Result<HashMap<u32, AppPort>> {
        let mut ports = HashMap::new();
        for socket in listening
            .iter()
            .filter(|socket| !socket.at.ip().to_canonical().is_loopback())
        {
            match sys::map_get::<u64, AppSocket>(self.counted.as_fd(), &socket.cookie) {
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let (v4, v6) = families(socket.at);
            let sockets = ports
                .entry(u32::from(socket.at.port()))
                .or_insert(AppPort { v4: 0, v6: 0 });
            sockets.v4 += u64::from(v4);
            sockets.v6 += u64::from(v6);
        }
        Ok(ports)
    }
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
