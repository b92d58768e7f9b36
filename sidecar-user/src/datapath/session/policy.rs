//! The policy in the kernel: written beside the one in force, then put in its place by one word.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sidecar_ebpf::abi::{self, PolicyKey, Range, Settings};
use sidecar_ebpf::addr::Port;
use sidecar_ebpf::verdict;

use super::super::policy::{Direction, Key, Policy, Rule, host};
use super::super::{Error, sys};
use super::settings::{Ownership, Switches};
use super::table::{Failed, Table};

/// The policy of an attached datapath. Cheap to clone; changes happen one at a time.
#[derive(Clone, Debug)]
pub struct PolicyMap {
    map: Table<Key, abi::Policy>,
    switches: Switches,
    in_force: Arc<Mutex<InForce>>,
}

#[derive(Debug)]
struct InForce {
    generation: u8,
    policy: Policy,
}

impl PolicyMap {
    /// Writes nothing yet.
    pub(super) fn new(map: Table<Key, abi::Policy>, switches: Switches, policy: &Policy) -> Self {
        Self {
            map,
            switches,
            in_force: Arc::new(Mutex::new(InForce {
                generation: 0,
                policy: policy.clone(),
            })),
        }
    }

    /// Of programs that are attached: this policy, in the generation that their settings say.
    pub(super) fn in_force(map: Table<Key, abi::Policy>, switches: Switches, policy: &Policy) -> Self {
        let generation = switches.wanted().policy_generation as u8;
        let made = Self::new(map, switches, policy);
        made.lock().generation = generation;
        made
    }

    /// The generation in force is the one that the settings say.
    pub(super) fn renew(&self) {
        self.lock().generation = self.switches.wanted().policy_generation as u8;
    }

    /// Before any program runs, or while those of an earlier proxy go on with the policy that `before` has. Answers what
    /// the settings have to say for it to count.
    pub(in super::super) fn write(&self, before: &Settings) -> Result<u32, Error> {
        let mut in_force = self.lock();
        in_force.generation = write(&self.map, before.policy_generation as u8, &in_force.policy)?;
        Ok(in_force.generation.into())
    }

    /// The policy that is in force stays: that of the proxy before, until this one has its own.
    pub(in super::super) fn keep(&self, generation: u32) {
        self.lock().generation = generation as u8;
    }

    /// Once the settings say so.
    pub(in super::super) fn retire_others(&self) {
        retire_others(&self.map, self.lock().generation);
    }

    /// Puts a policy in the place of the one in force, for connections to come: each sees all of one or all of the
    /// other. After an error the one before is in force. Blocks for some milliseconds.
    pub fn apply(&self, policy: &Policy) -> Result<(), Error> {
        let mut in_force = self.lock();
        if self.switches.ownership() != Ownership::Ours {
            return Err(Error::Superseded);
        }
        let generation = write(&self.map, in_force.generation, policy)?;
        if let Err(error) = self
            .switches
            .change(|settings| settings.policy_generation = generation.into())
        {
            remove(&self.map, |of| of == generation);
            return Err(error);
        }
        *in_force = InForce {
            generation,
            policy: policy.clone(),
        };
        retire_others(&self.map, generation);
        Ok(())
    }

    /// What the programs would find.
    pub fn lookup(&self, direction: Direction, ip: IpAddr, port: u16) -> Result<Range, Error> {
        Ok(self.explain(direction, ip, port)?.0)
    }

    /// What the programs would find, and the rule that it comes from; none is the default, to take.
    pub fn explain(
        &self,
        direction: Direction,
        ip: IpAddr,
        port: u16,
    ) -> Result<(Range, Option<Rule>), Error> {
        let in_force = self.lock();
        let key = Key::new(in_force.generation, direction, host(ip));
        let policy = self.map.get(&key)?;
        let range = verdict::of_port(policy.as_ref(), Port::new(port));
        let rule = match range.rule {
            Range::DEFAULT => None,
            number => in_force.policy.rules(direction).get(usize::from(number)).cloned(),
        };
        Ok((range, rule))
    }

    fn lock(&self) -> MutexGuard<'_, InForce> {
        // A change that panicked has left what was in force, in the kernel and here.
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a policy beside the one in force, and answers its generation. Leaves nothing behind when it fails.
fn write(map: &Table<Key, abi::Policy>, in_force: u8, policy: &Policy) -> Result<u8, Error> {
    // What a proxy left that died while it changed its policy.
    remove(map, |generation| generation != in_force);
    // Zero says that there is no policy.
    let generation = in_force.checked_add(1).unwrap_or(1);
    for prefix in policy.prefixes() {
        let key = Key::new(generation, prefix.direction, prefix.net);
        if let Err(failed) = map.set(&key, &prefix.policy) {
            remove(map, |of| of == generation);
            return Err(Error::Policy {
                networks: policy.prefixes().len(),
                source: failed.into(),
            });
        }
    }
    Ok(generation)
}

/// Takes the other generations away, once no program looks at them any more. Where the kernel does not let us know,
/// they stay until the next change.
fn retire_others(map: &Table<Key, abi::Policy>, in_force: u8) {
    if sys::wait_for_programs().is_ok() {
        remove(map, |generation| generation != in_force);
    }
}

/// Best effort: entries that do not count do no harm but take room, and are removed before the next policy is written.
fn remove(map: &Table<Key, abi::Policy>, which: impl Fn(u8) -> bool) {
    let _: Result<(), Failed> = map.retain(|key| !which(key.key.generation));
}

const _: () = assert!(size_of::<Key>() == size_of::<u32>() + size_of::<PolicyKey>());
