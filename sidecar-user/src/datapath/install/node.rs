//! One load of the programs for all pods of a node: the maps that the pods share, those by which a program finds the maps of
//! its pod, and the programs that are the same for every pod. Attaches nothing.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use sidecar_ebpf::abi::{Owner, PODS_MOST, map, program};

use super::super::map::{self as maps, Map};
use super::super::session::PROGRAMS;
use super::super::sys::{self, MapInfo};
use super::super::{Error, PodTarget};
use super::image::{FOR_ONE_POD, Images};
use super::links::{self, HOOKS, Hook};
use super::logs::{self, Logs};
use super::object::{self, Features, map_fd};
use super::probes::Probes;
use super::{detach, pins};

/// Maps that are one for all pods. Of the others each pod has its own.
pub(super) const SHARED: [&str; 7] = [
    map::ORIGIN,
    map::BYPASS,
    map::WATCHED,
    map::RINGS,
    map::ANSWERS,
    map::HOST,
    map::PROBES,
];

type Maps = Vec<(&'static str, Arc<OwnedFd>)>;

/// What is loaded for a pod, by itself or with others.
pub(super) struct Programs {
    pub(super) number: u32,
    pub(super) numbers: Arc<Numbers>,
    /// In the order of attaching.
    pub(super) hooks: Vec<(Hook, Arc<OwnedFd>)>,
    /// Of the control path.
    pub(super) control: Arc<OwnedFd>,
    /// What a session uses without a hook.
    pub(super) used: Vec<(&'static str, Arc<OwnedFd>)>,
    pub(super) shared: Maps,
    /// The pod's own.
    pub(super) own: Maps,
    pub(super) logs: Option<Logs>,
    /// Of programs that share nothing; those of a node are the node's.
    pub(super) probes: Option<Probes>,
}

impl Programs {
    /// Programs for one pod, which share nothing with others.
    pub(super) fn alone(pins: &Path, renewed: &BTreeSet<&str>, owner: Owner) -> Result<Self, Error> {
        let log = logs::enabled();
        let mut reused = own_maps(pins, renewed);
        let kept = SHARED.into_iter().filter(|name| !renewed.contains(name));
        reused.extend(kept.map(|name| (name, pins::map(pins, name))));
        let mut ebpf = object::load(features(), owner, 1, &reused, log)?;
        let logs = log.then(|| Logs::take(&mut ebpf).ok()).flatten();
        links::load_all(&mut ebpf)?;
        let mut programs = |name| links::program(&mut ebpf, name).map(Arc::new);
        let hooks = HOOKS.map(|hook| Ok((hook, programs(hook.program)?)));
        let hooks = hooks.into_iter().collect::<Result<_, Error>>()?;
        let used = PROGRAMS.map(|(name, _)| Ok((name, programs(name)?)));
        let used = used.into_iter().collect::<Result<_, Error>>()?;
        let control = programs(program::SETSOCKOPT)?;
        Ok(Self {
            number: owner.pod,
            numbers: Arc::new(Numbers::of(&ebpf)?),
            hooks,
            control,
            used,
            shared: shared(&ebpf)?,
            own: own(&ebpf)?,
            logs,
            probes: Some(Probes::of(&ebpf)?),
        })
    }
}

/// The programs of a node. What they share is pinned below a directory of the node's own, and found again there by whoever
/// loads them next: the pods keep their numbers.
pub struct Node {
    numbers: Arc<Numbers>,
    probes: Probes,
    shared: Maps,
    /// All but those that are loaded for each pod.
    programs: Vec<(&'static str, Arc<OwnedFd>)>,
    images: Images,
    /// What the maps of a pod are made like.
    templates: Vec<(&'static str, MapInfo)>,
}

impl Node {
    /// Loads them. Blocks for as long as the kernel's verifier takes, some tens of milliseconds.
    pub fn load(pins: &Path) -> Result<Self, Error> {
        pins::prepare(pins)?;
        // No log: its ring would be one for each load.
        let mut ebpf = object::load(
            features(),
            Owner::ALONE,
            PODS_MOST as u32,
            &node_maps(pins),
            false,
        )?;
        // Also those of which each pod will have its own: what the kernel refuses is to be told now, with its reason.
        links::load_all(&mut ebpf)?;
        let for_all = program::ALL
            .into_iter()
            .filter(|name| FOR_ONE_POD.iter().all(|(own, ..)| own != name));
        let programs = for_all.map(|name| Ok((name, Arc::new(links::program(&mut ebpf, name)?))));
        let programs = programs.collect::<Result<_, Error>>()?;
        let templates = own(&ebpf)?.into_iter().map(|(name, map)| {
            let info = sys::map_info(map.as_fd()).map_err(|source| Error::MapIo { map: name, source })?;
            Ok((name, info))
        });
        Ok(Self {
            programs,
            numbers: Arc::new(Numbers::of(&ebpf)?),
            probes: Probes::of(&ebpf)?,
            shared: shared(&ebpf)?,
            templates: templates.collect::<Result<_, Error>>()?,
            images: Images::of(&ebpf)?,
        })
    }

    /// Loads what is loaded for each pod: the one in the network namespace of that cookie, which has a number from now on.
    /// Of its own maps those are kept that are pinned there and not to be made anew.
    pub(super) fn load_for(
        &self,
        netns: u64,
        (pins, renewed): (&Path, &BTreeSet<&str>),
        owner: impl FnOnce(u32) -> Owner,
    ) -> Result<Programs, Error> {
        let number = self.numbers.of_pod(netns)?;
        let of_pod = self.own(pins, renewed)?;
        let own = self.images.load(&owner(number))?;
        let find = |name| {
            let mut all = own.iter().chain(&self.programs);
            let found = all
                .find(|(known, _)| *known == name)
                .map(|(_, program)| program.clone());
            found.ok_or(Error::Missing {
                kind: "program",
                name,
            })
        };
        let hooks = HOOKS.map(|hook| Ok((hook, find(hook.program)?)));
        let used = PROGRAMS.map(|(name, _)| Ok((name, find(name)?)));
        Ok(Programs {
            number,
            numbers: self.numbers.clone(),
            hooks: hooks.into_iter().collect::<Result<_, Error>>()?,
            control: find(program::SETSOCKOPT)?,
            used: used.into_iter().collect::<Result<_, Error>>()?,
            shared: self.shared.clone(),
            own: of_pod,
            logs: None,
            probes: None,
        })
    }

    /// The maps of a pod: opened where they are pinned, or made and pinned there; those that are renewed are made.
    fn own(&self, pins: &Path, renewed: &BTreeSet<&str>) -> Result<Maps, Error> {
        let all = self.templates.iter().map(|(name, info)| {
            let make = || maps::create_like(name, info, self.images.btf.as_fd());
            let fail = |source| Error::MapIo { map: name, source };
            let made = match renewed.contains(name) {
                true => make().map_err(fail)?,
                false => {
                    let pin = pins::map(pins, name);
                    match sys::open_pin(&pin) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {
                            let made = make().map_err(fail)?;
                            sys::pin(made.as_fd(), &pin).map_err(Error::path("pin", &pin))?;
                            made
                        }
                        opened => opened.map_err(Error::path("pinned map", &pin))?,
                    }
                }
            };
            Ok((*name, Arc::new(made)))
        });
        all.collect()
    }

    /// Takes away what is attached and pinned of a pod that is gone, and gives its number up.
    pub fn give_up(&self, pins: &Path) -> Result<(), Error> {
        let settings = pins::pinned_settings(pins);
        detach::detach(pins, true)?;
        settings.map_or(Ok(()), |settings| self.forget(settings.netns))
    }

    /// Gives up the number of a pod that is gone, and its maps as far as the programs hold them.
    pub fn forget(&self, netns: u64) -> Result<(), Error> {
        self.probes.set_ports(netns, &BTreeSet::new())?;
        self.numbers.forget(netns)
    }

    /// Of this host, from which it may ask at the ports of [`Self::set_probe_ports`].
    pub fn set_host_addresses(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        self.probes.set_host(addresses)
    }

    /// Where this host may ask whether the containers of a pod are well. Such a connection goes to the application itself, or is
    /// refused where it does not listen, whatever the pod's proxy does.
    pub fn set_probe_ports(&self, pod: &PodTarget, ports: &BTreeSet<u16>) -> Result<(), Error> {
        self.probes.set_ports(pod.netns().cookie()?, ports)
    }
}

/// Those that are found again, and where.
fn node_maps(pins: &Path) -> Vec<(&'static str, PathBuf)> {
    let by_pod = map::BY_POD.map(|(own, all)| (all, format!("{all}_{}", super::super::versioned(own))));
    let pinned = by_pod.map(|(all, name)| (all, pins::maps(pins).join(name)));
    let shared = SHARED.map(|name| (name, pins::map(pins, name)));
    let pods = (map::PODS, pins::map(pins, map::PODS));
    pinned.into_iter().chain(shared).chain([pods]).collect()
}

/// Those of a pod that are kept, and where they are pinned.
fn own_maps(pins: &Path, renewed: &BTreeSet<&str>) -> Vec<(&'static str, PathBuf)> {
    let kept = map::BY_POD
        .into_iter()
        .filter(|(name, _)| !renewed.contains(name));
    kept.map(|(name, _)| (name, pins::map(pins, name))).collect()
}

fn own(ebpf: &Ebpf) -> Result<Maps, Error> {
    let own = map::BY_POD.map(|(name, _)| map_fd(ebpf, name).map(|fd| (name, Arc::new(fd))));
    own.into_iter().collect()
}

fn features() -> Features {
    let features = Features::probe();
    for [feature, consequence, remedy] in features.absent() {
        tracing::warn!(feature, "{consequence}; {remedy}");
    }
    features
}

fn shared(ebpf: &Ebpf) -> Result<Maps, Error> {
    let shared = SHARED.map(|name| map_fd(ebpf, name).map(|fd| (name, Arc::new(fd))));
    shared.into_iter().collect()
}

/// Gives pods their numbers.
pub(super) struct Numbers {
    pods: Map<u64, u32>,
    /// For each map that a pod has, the one that has those of all pods.
    by_pod: Vec<(&'static str, Map<u32, RawFd>)>,
    /// Numbers that are given to pods whose maps are not there yet.
    given: Mutex<Vec<(u64, u32)>>,
}

impl Numbers {
    fn of(ebpf: &Ebpf) -> Result<Self, Error> {
        let by_pod = map::BY_POD.map(|(own, all)| {
            let map = Map::new(all, Arc::new(map_fd(ebpf, all)?))?;
            Ok((own, map))
        });
        Ok(Self {
            pods: Map::new(map::PODS, Arc::new(map_fd(ebpf, map::PODS)?))?,
            by_pod: by_pod.into_iter().collect::<Result<_, Error>>()?,
            given: Mutex::default(),
        })
    }

    /// The one that it has, or the lowest that is free.
    fn of_pod(&self, netns: u64) -> Result<u32, Error> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self.pods.entries()?;
        taken.extend(given.iter().copied());
        if let Some((_, number)) = taken.iter().find(|(of, _)| *of == netns) {
            return Ok(*number);
        }
        let taken: BTreeSet<u32> = taken.into_iter().map(|(_, number)| number).collect();
        let number = (0..PODS_MOST as u32).find(|number| !taken.contains(number));
        let number = number.ok_or(Error::TooManyPods { most: PODS_MOST })?;
        given.push((netns, number));
        Ok(number)
    }

    /// The pod in the network namespace of that cookie has that number, and these maps. The programs find the pod last, so
    /// that they see all of its maps or none.
    pub(super) fn admit(&self, number: u32, netns: u64, maps: &Maps) -> Result<(), Error> {
        for (name, _) in &self.by_pod {
            self.show(number, name, maps)?;
        }
        self.pods.set(&netns, &number)?;
        self.no_longer_given(netns);
        Ok(())
    }

    /// One of the maps, by which the programs know the pod from now on.
    pub(super) fn show(&self, number: u32, name: &'static str, maps: &Maps) -> Result<(), Error> {
        let missing = Error::Missing { kind: "map", name };
        let map = maps.iter().find(|(own, _)| *own == name);
        let all = self.by_pod.iter().find(|(own, _)| *own == name);
        let ((_, map), (_, all)) = map.zip(all).ok_or(missing)?;
        Ok(all.set(&number, &map.as_raw_fd())?)
    }

    fn forget(&self, netns: u64) -> Result<(), Error> {
        self.no_longer_given(netns);
        let Some(number) = self.pods.get(&netns)? else {
            return Ok(());
        };
        self.pods.remove(&netns)?;
        for (_, all) in &self.by_pod {
            all.remove(&number)?;
        }
        Ok(())
    }

    fn no_longer_given(&self, netns: u64) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|(of, _)| *of != netns);
    }
}
