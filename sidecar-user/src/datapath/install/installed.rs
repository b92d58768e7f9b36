//! What a proxy has put into the kernel, or is about to: its programs, its maps and its settings, and the order in which
//! they take the place of an earlier proxy's. Loads nothing; `attach.rs` does.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use sidecar_ebpf::abi::GENERATIONS;

use super::super::map::Map;
use super::super::session::PolicyMap;
use super::super::session::settings::Switches;
use super::super::{Error, PodTarget, sys};
use super::lease::Lease;
use super::links::{self, Hook};
use super::{Former, generation, pins};

/// Kept for as long as the proxy lives, which may have to put its own back.
pub(super) struct Installed {
    pub(super) pins: PathBuf,
    pub(super) pod: PodTarget,
    /// In the order of attaching.
    pub(super) programs: Vec<(Hook, OwnedFd)>,
    pub(super) maps: Vec<(&'static str, Arc<OwnedFd>)>,
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
        let generation = self.policy.write(&self.switches.current()?)?;
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
        let renewed = self.maps.iter().filter(|(name, _)| self.renewed.contains(name));
        self.pin(renewed)?;
        links::remove_others(&self.pins)?;
        pins::forget_other_maps(&self.pins)?;
        self.policy.retire_others();
        Ok(())
    }

    /// Undoes what another proxy has done, or begun to do, that ended before it had taken the pod over.
    pub(super) fn restore(&self) -> Result<(), Error> {
        let generation = self.policy.write(&self.switches.current()?)?;
        self.switches
            .begin(|settings| settings.policy_generation = generation)?;
        links::take_back(&self.pins, self.generation)?;
        self.attach()?;
        self.pin(&self.maps)?;
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

    /// For another handle.
    pub(super) fn map<K: Pod, V: Pod>(&self, name: &'static str) -> Result<Map<K, V>, Error> {
        another(&self.maps, name)
    }
}

pub(super) fn another<K: Pod, V: Pod>(
    maps: &[(&'static str, Arc<OwnedFd>)],
    name: &'static str,
) -> Result<Map<K, V>, Error> {
    let found = maps.iter().find(|(of, _)| *of == name);
    let (_, map) = found.ok_or(Error::Missing { kind: "map", name })?;
    Map::new(name, map.clone())
}
