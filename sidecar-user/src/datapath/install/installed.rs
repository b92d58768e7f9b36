//! What a proxy has put into the kernel, or is about to: its programs, its maps and its settings, and the order in which
//! they take the place of an earlier proxy's. Loads nothing; `attach.rs` does.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sidecar_ebpf::abi::{GENERATIONS, RING_BYTES, map, ring_slot};

use super::super::map::{Map, ring};
use super::super::session::settings::Switches;
use super::super::session::{Descriptors, Objects, PolicyMap};
use super::super::{Error, PodTarget, sys};
use super::lease::Lease;
use super::links::{self, Hook};
use super::{Former, generation, pins};

/// Kept for as long as the proxy lives, which may have to put its own back.
pub(super) struct Installed {
    pub(super) pins: PathBuf,
    pub(super) pod: PodTarget,
    /// Among those that the programs serve.
    pub(super) number: u32,
    /// In the order of attaching.
    pub(super) programs: Vec<(Hook, Arc<OwnedFd>)>,
    pub(super) maps: Vec<(&'static str, Arc<OwnedFd>)>,
    /// Those of them that belong into the pod's directory.
    pub(super) pinned: Vec<(&'static str, Arc<OwnedFd>)>,
    /// What a session uses of them without a hook.
    pub(super) used: Vec<(&'static str, Arc<OwnedFd>)>,
    /// Those that are not pinned yet.
    pub(super) renewed: BTreeSet<&'static str>,
    pub(super) former: Former,
    pub(super) generation: usize,
    pub(super) switches: Switches,
    pub(super) policy: PolicyMap,
    /// Nobody else attaches while this is here. A proxy that has been superseded has none.
    pub(super) lease: Mutex<Option<Lease>>,
}

impl Installed {
    /// From now on these programs and settings count, for connections to come.
    pub(super) fn activate(&self) -> Result<(), Error> {
        // Everything that the programs ask for is in place before the first of them runs.
        let generation = self.policy.write(&self.switches.current())?;
        self.switches
            .begin(|settings| settings.policy_generation = generation)?;
        // Whoever had these slots before has no listeners any more.
        links::put_away(&self.pins, self.generation)?;
        self.forget_formers()?;
        if let Former::Serving(generation) = self.former
            && pins::are_apart(&self.renewed)
        {
            links::set_aside(&self.pins, generation)?;
        }
        self.attach()?;
        let renewed = self.pinned.iter().filter(|(name, _)| self.renewed.contains(name));
        self.pin(renewed)?;
        links::remove_others(&self.pins)?;
        pins::forget_other_maps(&self.pins)?;
        self.policy.retire_others();
        Ok(())
    }

    /// Undoes what another proxy has done, or begun to do, that ended before it had taken the pod over.
    pub(super) fn restore(&self) -> Result<(), Error> {
        let generation = self.policy.write(&self.switches.current())?;
        self.switches
            .begin(|settings| settings.policy_generation = generation)?;
        links::take_back(&self.pins, self.generation)?;
        self.attach()?;
        self.pin(&self.pinned)?;
        links::remove_others(&self.pins)?;
        pins::forget_other_maps(&self.pins)?;
        self.policy.retire_others();
        Ok(())
    }

    /// Detaches what earlier proxies needed that have no listeners any more. False: some have.
    pub(super) fn forget_formers(&self) -> Result<bool, Error> {
        let mut all = true;
        // Its own are aside where another proxy is about to take over.
        let others = (0..GENERATIONS).filter(|number| *number != self.generation);
        for number in others.filter(|number| links::is_aside(&self.pins, *number)) {
            match generation::is_free(&self.pins, number) {
                true => links::put_away(&self.pins, number)?,
                false => all = false,
            }
        }
        Ok(all)
    }

    fn attach(&self) -> Result<(), Error> {
        let mut programs = self.programs.iter();
        programs.try_for_each(|(hook, program)| links::attach(program.as_fd(), *hook, &self.pod, &self.pins))
    }

    fn pin<'a>(&self, maps: impl IntoIterator<Item = &'a (&'static str, Arc<OwnedFd>)>) -> Result<(), Error> {
        for (name, map) in maps {
            let pin = pins::map(&self.pins, name);
            pins::remove_file(&pin)?;
            sys::pin(map.as_fd(), &pin).map_err(Error::path("pin", &pin))?;
        }
        Ok(())
    }

    pub(super) fn lease(&self) -> std::sync::MutexGuard<'_, Option<Lease>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ring for the SYNs that are held for a shard, in its slot already. One that was there before is told of no other.
    pub(super) fn ring(&self, shard: u32) -> Result<OwnedFd, Error> {
        let rings = self.maps.iter().find(|(name, _)| *name == map::RINGS);
        let (name, rings) = rings.ok_or(Error::Missing {
            kind: "map",
            name: map::RINGS,
        })?;
        let slots: Map<u32, RawFd> = Map::new(name, rings.clone())?;
        let ring = ring(RING_BYTES as u32).map_err(|source| Error::Hold { shard, source })?;
        let first = u32::from(self.switches.wanted().first_shard);
        slots.set(&ring_slot(self.number, first + shard), &ring.as_raw_fd())?;
        Ok(ring)
    }

    /// What a session of another process is made of, with a new ring for each shard: whoever serves by an earlier one is told
    /// of no other held SYN.
    pub(super) fn descriptors(&self) -> Result<Descriptors, Error> {
        let shards = 0..u32::from(self.switches.wanted().shards);
        let rings = shards.map(|shard| self.ring(shard)).collect::<Result<_, _>>()?;
        let pod = || -> io::Result<_> {
            let netns = self.pod.netns().as_fd().try_clone_to_owned()?;
            Ok((self.pod.cgroup().try_clone_to_owned()?, netns))
        };
        let (cgroup, netns) = pod().map_err(|source| Error::Host {
            what: "the descriptors of the pod",
            source,
        })?;
        let objects = Objects {
            maps: self.maps.clone(),
            programs: self.used.clone(),
            rings,
        };
        Ok(Descriptors::new(cgroup, netns, objects))
    }
}
