//! Tells the programs how this host would reach its destinations, so that connect() fails as it would without the
//! proxy, and getsockname() shows the address that the kernel would have sent from.
//!
//! Knows no routing table; `host/` asks the kernel.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use bytemuck::{Pod, Zeroable};
use ipnet::IpNet;
use sidecar_ebpf::abi::{self, ROUTE_ENTRIES, map};
use sidecar_ebpf::addr::Ip;

use super::ip::{kernel_ip, user_ip};
use super::settings::Switches;
use super::{Error, sys};
use crate::model::network::Path;

pub struct RouteMap {
    map: OwnedFd,
    switches: Switches,
    written: BTreeMap<Key, Path>,
    complete: bool,
}

/// Of an LPM trie: IPv4 is v4-mapped, its prefixes are 96 bits longer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
struct Key {
    bits: u32,
    ip: [u8; 16],
}

impl RouteMap {
    pub(super) fn new(map: OwnedFd, switches: Switches) -> Result<Self, Error> {
        // What an earlier proxy has written is in force, and is changed where it is no longer so.
        let written = written(&map).map_err(fail)?;
        let complete = switches.current()?.routes != 0;
        Ok(Self {
            map,
            switches,
            written,
            complete,
        })
    }

    /// Replaces all paths. A destination without any counts as unreachable. Changes what differs, one by one: new and
    /// changed prefixes first, so that none is missing that was there and still is.
    pub fn set(&mut self, paths: &BTreeMap<IpNet, Path>) -> Result<(), Error> {
        if paths.len() > ROUTE_ENTRIES {
            return Err(Error::TooMany {
                field: "routes are known here",
                given: paths.len(),
                max: ROUTE_ENTRIES,
                remedy: "connections without a route fail late; join routes",
            });
        }
        let wanted: BTreeMap<Key, Path> = paths.iter().map(|(net, path)| (key(net), *path)).collect();
        let gone: Vec<Key> = self
            .written
            .keys()
            .filter(|key| !wanted.contains_key(key))
            .copied()
            .collect();
        // At the limit there is no room for both.
        let tight = wanted.len() + gone.len() > ROUTE_ENTRIES;
        if tight {
            self.remove(&gone)?;
        }
        for (key, path) in &wanted {
            if self.written.get(key) != Some(path) {
                sys::map_set(self.map.as_fd(), key, &value(path)).map_err(fail)?;
                self.written.insert(*key, *path);
            }
        }
        if !tight {
            self.remove(&gone)?;
        }
        Ok(())
    }

    /// Whether the paths are all there are. Otherwise a destination without a path is tried.
    pub fn complete(&mut self, complete: bool) -> Result<(), Error> {
        if self.complete != complete {
            self.switches
                .change(|settings| settings.routes = complete.into())?;
            self.complete = complete;
        }
        Ok(())
    }

    fn remove(&mut self, keys: &[Key]) -> Result<(), Error> {
        for key in keys {
            match sys::map_remove(self.map.as_fd(), key) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
                _ => self.written.remove(key),
            };
        }
        Ok(())
    }
}

fn key(net: &IpNet) -> Key {
    let (ip, before) = match net.network() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), 96),
        IpAddr::V6(ip) => (ip, 0),
    };
    Key {
        bits: before + u32::from(net.prefix_len()),
        ip: ip.octets(),
    }
}

fn written(map: &OwnedFd) -> io::Result<BTreeMap<Key, Path>> {
    let mut written = BTreeMap::new();
    let mut last = None;
    while let Some(key) = sys::map_next_key::<Key>(map.as_fd(), last.as_ref())? {
        let value: abi::Path = sys::map_get(map.as_fd(), &key)?;
        let path = match value.errno {
            0 => Path::From(user_ip(value.source)),
            errno => Path::Fails(errno),
        };
        written.insert(key, path);
        last = Some(key);
    }
    Ok(written)
}

fn value(path: &Path) -> abi::Path {
    match path {
        Path::From(source) => abi::Path {
            source: kernel_ip(*source),
            errno: 0,
        },
        Path::Fails(errno) => abi::Path {
            source: Ip::from_v6([0; 4]),
            errno: *errno,
        },
    }
}

fn fail(source: io::Error) -> Error {
    Error::MapIo {
        map: map::ROUTES,
        source,
    }
}
