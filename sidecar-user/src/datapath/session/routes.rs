//! Tells the programs how this host would reach its destinations, so that connect() fails as it would without the
//! proxy, and getsockname() shows the address that the kernel would have sent from.
//!
//! Knows no routing table; `host/` asks the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytemuck::{Pod, Zeroable};
use ipnet::IpNet;
use sidecar_ebpf::abi::{self, ROUTE_ENTRIES};
use sidecar_ebpf::addr::Ip;

use super::super::Error;
use super::super::ip::{kernel_ip, user_ip};
use super::settings::Switches;
use super::table::Table;
use crate::model::network::Path;

pub struct RouteMap {
    map: Table<Key, abi::Path>,
    switches: Switches,
    written: BTreeMap<Key, Path>,
    complete: bool,
}

/// What stood in the map.
pub struct RoutesWritten(BTreeMap<Key, Path>);

/// Of an LPM trie: IPv4 is v4-mapped, its prefixes are 96 bits longer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub(super) struct Key {
    bits: u32,
    ip: [u8; 16],
}

impl RouteMap {
    pub(super) fn new(map: Table<Key, abi::Path>, switches: Switches) -> Result<Self, Error> {
        // What an earlier proxy has written is in force, and is changed where it is no longer so.
        let written = written(&map)?;
        let complete = switches.current().routes != 0;
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
                self.map.set(key, &value(path))?;
                self.written.insert(*key, *path);
            }
        }
        if !tight {
            self.remove(&gone)?;
        }
        Ok(())
    }

    /// Removes all paths, and answers them.
    pub fn clear(&mut self) -> Result<RoutesWritten, Error> {
        let before = self.written.clone();
        self.set(&BTreeMap::new())?;
        Ok(RoutesWritten(before))
    }

    /// Writes again what was cleared, and removes nothing.
    pub fn put_back(&mut self, RoutesWritten(before): &RoutesWritten) -> Result<(), Error> {
        for (key, path) in before {
            self.map.set(key, &value(path))?;
            self.written.insert(*key, *path);
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
            self.map.remove(key)?;
            self.written.remove(key);
        }
        Ok(())
    }
}

/// Of one address, or of many.
pub(super) fn key(net: &IpNet) -> Key {
    let (ip, before) = match net.network() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), 96),
        IpAddr::V6(ip) => (ip, 0),
    };
    Key {
        bits: before + u32::from(net.prefix_len()),
        ip: ip.octets(),
    }
}

fn written(map: &Table<Key, abi::Path>) -> Result<BTreeMap<Key, Path>, Error> {
    let path = |value: abi::Path| match value.errno {
        0 => Path::From(user_ip(value.source)),
        errno => Path::Fails(errno),
    };
    let entries = map.entries()?.into_iter();
    Ok(entries.map(|(key, value)| (key, path(value))).collect())
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
