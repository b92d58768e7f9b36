//! What a proxy has put into the kernel, or is about to: its programs, its maps and its settings, and the order in which
//! they take the place of an earlier proxy's. Loads nothing; `attach.rs` does.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Zeroable;
use sidecar_ebpf::abi::{self, GENERATIONS, RING_BYTES, map, ring_slot};

use super::super::map::{Map, ring};
use super::super::session::settings::Switches;
use super::super::session::{Descriptors, Objects, PolicyMap, Secret};
use super::super::{Error, PodTarget, sys};
use super::lease::Lease;
use super::links::{self, Hook};
use super::node::Numbers;
use super::{Former, generation, pins};

/// Kept for as long as the proxy lives, which may have to put its own back.
pub(super) struct Installed {
    pub(super) pins: PathBuf,
    pub(super) pod: PodTarget,
    /// Among those that the programs serve.
    pub(super) number: u32,
    pub(super) numbers: Arc<Numbers>,
    /// The maps by which the programs are to know the pod.
    pub(super) own: Vec<(&'static str, Arc<OwnedFd>)>,
    /// In the order of attaching.
    pub(super) programs: Vec<(Hook, Arc<OwnedFd>)>,
    /// Of the control path, attached only where somebody needs that.
    pub(super) control: Arc<OwnedFd>,
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
    /// The policy of the proxy before stays in force: this one writes its own.
    pub(super) keeps_policy: bool,
    /// Nobody else attaches while this is here. A proxy that has been superseded has none.
    pub(super) lease: Mutex<Option<Lease>>,
}

impl Installed {
    /// From now on these programs and settings count, for connections to come.
    pub(super) fn activate(&self) -> Result<(), Error> {
        // Everything that the programs ask for is in place before the first of them runs.
        let generation = self.begin_policy()?;
        self.switches
            .begin(|settings| settings.policy_generation = generation)?;
        self.admit()?;
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

    /// The generation of the policy that is to be in force.
    fn begin_policy(&self) -> Result<u32, Error> {
        if !self.keeps_policy {
            return self.policy.write(&self.switches.current());
        }
        let generation = pins::pinned_settings(&self.pins).map_or(0, |settings| settings.policy_generation);
        self.policy.keep(generation);
        Ok(generation)
    }

    /// Attaches the program of the control path, for requests with this secret and no others.
    pub(super) fn open_control(&self, secret: &Secret) -> Result<(), Error> {
        let map = self.map(map::SECRET)?;
        Map::new(map::SECRET, map)?.set(&0_u32, secret.words())?;
        links::attach(self.control.as_fd(), links::CONTROL, &self.pod, &self.pins)
    }

    /// As [`Self::open_control`], with the secret that the pod has, or this one where it has none: a process that has it may
    /// still be draining.
    pub(super) fn control(&self, fresh: Secret) -> Result<Secret, Error> {
        let map: Map<u32, abi::control::Secret> = Map::new(map::SECRET, self.map(map::SECRET)?)?;
        let secret = match map.get(&0)? {
            Some(known) if known != abi::control::Secret::zeroed() => Secret::of_words(known),
            _ => fresh,
        };
        self.open_control(&secret)?;
        // Whoever has the secret asks before the other maps come into force, which may be new ones.
        self.numbers.show(self.number, map::SECRET, &self.own)?;
        Ok(secret)
    }

    /// Undoes what another proxy has done, or begun to do, that ended before it had taken the pod over.
    pub(super) fn restore(&self) -> Result<(), Error> {
        let generation = self.policy.write(&self.switches.current())?;
        self.switches
            .begin(|settings| settings.policy_generation = generation)?;
        self.admit()?;
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

    /// The programs find these maps from now on, with all that stands in them.
    fn admit(&self) -> Result<(), Error> {
        let netns = self.switches.wanted().netns;
        self.numbers.admit(self.number, netns, &self.own)
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
        let slots: Map<u32, RawFd> = Map::new(map::RINGS, self.map(map::RINGS)?)?;
        let ring = ring(RING_BYTES as u32).map_err(|source| Error::Hold { shard, source })?;
        let first = u32::from(self.switches.wanted().first_shard);
        slots.set(&ring_slot(self.number, first + shard), &ring.as_raw_fd())?;
        Ok(ring)
    }

    fn map(&self, name: &'static str) -> Result<Arc<OwnedFd>, Error> {
        let found = self.maps.iter().find(|(known, _)| *known == name);
        let missing = Error::Missing { kind: "map", name };
        found.map(|(_, map)| map.clone()).ok_or(missing)
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
