//! What a session is made of, as a list of descriptors with names: one process can hand it to another over a Unix socket, the
//! names in a message and the descriptors beside it (SCM_RIGHTS, unix(7)).
//!
//! The receiver believes no name. Each descriptor is asked what it is: a map for the name and the sizes that the kernel has of
//! it, one that is read as memory and a ring for how much memory they have (which takes no bpf(2)), a program for its name and
//! kind, the cgroup and the namespace for their file systems. A map's name in the
//! list has the version of its layout in it, as its pin has, so that a receiver of another version finds it missing. Which pod
//! the objects belong to nobody can ask them: whoever hands them over answers for that.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytemuck::Pod;
use sidecar_ebpf::abi::{map, program};

use super::super::map::Map;
use super::super::sys::{self, MapInfo};
use super::super::{Error, versioned};
use super::control::Control;
use super::mapped::Mapped;
use super::ring::Ring;
use super::settings::Writer;
use super::table::{Operations, Table};

const CGROUP: &str = "cgroup";
const NETNS: &str = "netns";

/// Maps that a session reads or writes.
const MAPS: [&str; 10] = [
    map::SETTINGS,
    map::POLICY,
    map::ROUTES,
    map::BYPASS,
    map::LISTENERS,
    map::PENDING,
    map::APP_PORTS,
    map::APP_SOCKETS,
    map::INHERITED,
    map::COUNTERS,
];

/// Programs that a session uses, and their kinds.
pub(in super::super) const PROGRAMS: [(&str, u32); 2] = [
    (program::HOLD, BPF_PROG_TYPE_SOCKET_FILTER),
    (program::APPROVE, BPF_PROG_TYPE_SOCKET_FILTER),
];

const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;

/// What of it a process needs that may not call bpf(2): arrays to be mapped, and the filter of its own listeners. Everything else
/// it asks for by the control path.
const MAPS_WITHOUT_BPF: [&str; 4] = [map::SETTINGS, map::APP_PORTS, map::INHERITED, map::COUNTERS];
const PROGRAMS_WITHOUT_BPF: [&str; 1] = [program::HOLD];

/// All that a session is made of.
#[derive(Debug)]
pub struct Descriptors {
    pub(super) cgroup: OwnedFd,
    pub(super) netns: OwnedFd,
    pub(super) objects: Objects,
}

/// What of it is the kernel's own: maps, rings and programs.
#[derive(Debug)]
pub(in super::super) struct Objects {
    /// By their names, at least those of [`MAPS`].
    pub(in super::super) maps: Vec<(&'static str, Arc<OwnedFd>)>,
    /// By their names, those of [`PROGRAMS`].
    pub(in super::super) programs: Vec<(&'static str, Arc<OwnedFd>)>,
    /// One for each shard, in its slot already; none where nothing is to be held, or where rings come later.
    pub(in super::super) rings: Vec<OwnedFd>,
}

impl Descriptors {
    pub(in super::super) fn new(cgroup: OwnedFd, netns: OwnedFd, objects: Objects) -> Self {
        Self {
            cgroup,
            netns,
            objects,
        }
    }

    /// For handing them over, in any order.
    pub fn named(&self) -> Vec<(String, BorrowedFd<'_>)> {
        self.named_of(&MAPS, &PROGRAMS.map(|(name, _)| name))
    }

    /// Those that are of use without bpf(2).
    pub fn named_without_bpf(&self) -> Vec<(String, BorrowedFd<'_>)> {
        self.named_of(&MAPS_WITHOUT_BPF, &PROGRAMS_WITHOUT_BPF)
    }

    fn named_of(&self, maps: &[&str], programs: &[&str]) -> Vec<(String, BorrowedFd<'_>)> {
        let objects = &self.objects;
        let mut named = vec![
            (CGROUP.into(), self.cgroup.as_fd()),
            (NETNS.into(), self.netns.as_fd()),
        ];
        let programs = objects
            .programs
            .iter()
            .filter(|(name, _)| programs.contains(name));
        named.extend(programs.map(|(name, program)| ((*name).into(), program.as_fd())));
        let maps = objects.maps.iter().filter(|(name, _)| maps.contains(name));
        named.extend(maps.map(|(name, map)| (versioned(name), map.as_fd())));
        let rings = objects.rings.iter().enumerate();
        named.extend(rings.map(|(shard, ring)| (of_ring(shard), ring.as_fd())));
        named
    }

    /// Of what was handed over. Closes what it does not know: another version may need more.
    pub fn of_named(given: impl IntoIterator<Item = (String, OwnedFd)>) -> Result<Self, Error> {
        Self::of_these(given, &MAPS, &PROGRAMS.map(|(name, _)| name))
    }

    /// Of those that [`Self::named_without_bpf`] names.
    pub fn of_named_without_bpf(given: impl IntoIterator<Item = (String, OwnedFd)>) -> Result<Self, Error> {
        Self::of_these(given, &MAPS_WITHOUT_BPF, &PROGRAMS_WITHOUT_BPF)
    }

    fn of_these(
        given: impl IntoIterator<Item = (String, OwnedFd)>,
        maps: &[&'static str],
        programs: &[&'static str],
    ) -> Result<Self, Error> {
        let mut given: BTreeMap<String, OwnedFd> = given.into_iter().collect();
        let rings = (0..).map_while(|shard| given.remove(&of_ring(shard))).collect();
        let mut take = |name: &str| {
            given
                .remove(name)
                .ok_or_else(|| Error::NotHandedOver { name: name.into() })
        };
        let maps = maps
            .iter()
            .map(|name| Ok((*name, Arc::new(take(&versioned(name))?))))
            .collect::<Result<_, Error>>()?;
        let programs = programs
            .iter()
            .map(|name| Ok((*name, Arc::new(take(name)?))))
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            cgroup: take(CGROUP)?,
            netns: take(NETNS)?,
            objects: Objects {
                maps,
                programs,
                rings,
            },
        })
    }
}

/// The layout of what is in a ring has a version, as that of a map has.
fn of_ring(shard: usize) -> String {
    format!("{}/{shard}", versioned(map::RINGS))
}

impl Objects {
    pub(super) fn map<K: Pod, V: Pod>(&self, name: &'static str) -> Result<Map<K, V>, Error> {
        let map = find("map", &self.maps, name)?;
        asked(name, map.as_fd(), |info| info.name() == name)?;
        Map::new(name, map.clone())
    }

    /// An array that is read without bpf(2).
    pub(super) fn mapped<T: Pod>(&self, name: &'static str, slots: usize) -> Result<Mapped<T>, Error> {
        Mapped::new(name, find("map", &self.maps, name)?.as_fd(), slots)
    }

    /// Of a map, which is not asked what it is.
    pub(super) fn descriptor(&self, name: &'static str) -> Result<Arc<OwnedFd>, Error> {
        find("map", &self.maps, name).cloned()
    }

    /// By which the settings are written.
    pub(super) fn writer(&self, control: Option<&Control>) -> Result<Writer, Error> {
        match control {
            None => self.map(map::SETTINGS).map(Writer::Map),
            Some(control) => Ok(Writer::Control(control.clone())),
        }
    }

    pub(super) fn table<K: Pod + Eq + Hash, V: Pod>(
        &self,
        name: &'static str,
        control: Option<&Control>,
        operations: Operations,
    ) -> Result<Table<K, V>, Error> {
        match control {
            None => self.map(name).map(Table::Map),
            Some(control) => Ok(Table::of_control(control, operations)),
        }
    }

    /// A program that is not asked what it is, which takes bpf(2). The kernel takes none but a socket's filter for one.
    pub(super) fn filter(&self) -> Result<Arc<OwnedFd>, Error> {
        find("program", &self.programs, program::HOLD).cloned()
    }

    pub(super) fn program(&self, name: &'static str) -> Result<Arc<OwnedFd>, Error> {
        let program = find("program", &self.programs, name)?;
        let info = sys::program_info(program.as_fd()).map_err(|source| Error::Host {
            what: "what a program is",
            source,
        })?;
        match PROGRAMS.contains(&(info.name(), info.kind)) && info.name() == name {
            true => Ok(program.clone()),
            false => Err(other(name, info.name())),
        }
    }

    pub(super) fn rings(&self) -> Result<Vec<OwnedFd>, Error> {
        let ring = |ring: &OwnedFd| -> io::Result<OwnedFd> {
            // Mapped here, it is one; whoever holds SYNs maps it again.
            Ring::new(ring.try_clone()?)?;
            ring.try_clone()
        };
        let rings = self.rings.iter().map(ring).collect::<io::Result<_>>();
        rings.map_err(|source| Error::MapIo {
            map: map::RINGS,
            source,
        })
    }
}

fn find<'o>(
    kind: &'static str,
    among: &'o [(&'static str, Arc<OwnedFd>)],
    name: &'static str,
) -> Result<&'o Arc<OwnedFd>, Error> {
    let found = among.iter().find(|(of, _)| *of == name);
    found
        .map(|(_, object)| object)
        .ok_or(Error::Missing { kind, name })
}

fn asked(name: &'static str, map: BorrowedFd<'_>, is_it: impl FnOnce(&MapInfo) -> bool) -> Result<(), Error> {
    let info = sys::map_info(map).map_err(|source| Error::MapIo { map: name, source })?;
    match is_it(&info) {
        true => Ok(()),
        false => Err(other(name, info.name())),
    }
}

fn other(name: &'static str, found: &str) -> Error {
    Error::OtherObject {
        name,
        found: found.into(),
    }
}
