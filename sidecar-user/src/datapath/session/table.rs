//! A map that is looked into by prefix and written entry by entry: the policy, and the routes. By bpf(2), or by the control
//! path for a process that may not call that.

use std::collections::HashSet;
use std::hash::Hash;
use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;

use super::super::Error;
use super::super::map::{self, Map};
use super::control::{self, Control, Operation};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Table<K, V> {
    Map(Map<K, V>),
    Control(Entries<K, V>),
}

/// Of the control path, which has no way to ask for keys. So these are the ones that this process has written: whoever hands
/// over a session has removed those of earlier processes.
#[derive(Clone, Debug)]
pub(super) struct Entries<K, V> {
    control: Control,
    operations: Operations,
    written: Arc<Mutex<HashSet<K>>>,
    types: PhantomData<fn(K) -> V>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Operations {
    set: Operation,
    remove: Operation,
    get: Operation,
}

impl Operations {
    pub(super) const POLICY: Self = Self {
        set: Operation::POLICY_SET,
        remove: Operation::POLICY_REMOVE,
        get: Operation::POLICY_GET,
    };
    pub(super) const ROUTES: Self = Self {
        set: Operation::ROUTE_SET,
        remove: Operation::ROUTE_REMOVE,
        get: Operation::ROUTE_GET,
    };
}

#[derive(Debug)]
pub(super) enum Failed {
    Map(map::Failed),
    Control(control::Failed),
}

impl<K: Pod + Eq + Hash, V: Pod> Table<K, V> {
    pub(super) fn of_control(control: &Control, operations: Operations) -> Self {
        Self::Control(Entries {
            control: control.clone(),
            operations,
            written: Arc::default(),
            types: PhantomData,
        })
    }

    pub(super) fn set(&self, key: &K, value: &V) -> Result<(), Failed> {
        match self {
            Self::Map(map) => Ok(map.set(key, value)?),
            Self::Control(entries) => Ok(entries.set(key, value)?),
        }
    }

    /// Of the longest prefix that matches.
    pub(super) fn get(&self, key: &K) -> Result<Option<V>, Failed> {
        match self {
            Self::Map(map) => Ok(map.get(key)?),
            Self::Control(entries) => Ok(entries.control.get(entries.operations.get, key)?),
        }
    }

    /// False: there was no such key.
    pub(super) fn remove(&self, key: &K) -> Result<bool, Failed> {
        match self {
            Self::Map(map) => Ok(map.remove(key)?),
            Self::Control(entries) => Ok(entries.remove(key)?),
        }
    }

    /// Removes what is not to be kept.
    pub(super) fn retain(&self, keep: impl Fn(&K) -> bool) -> Result<(), Failed> {
        match self {
            Self::Map(map) => Ok(map.retain(keep)?),
            Self::Control(entries) => {
                for key in entries.keys().iter().filter(|key| !keep(key)) {
                    entries.remove(key)?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn entries(&self) -> Result<Vec<(K, V)>, Failed> {
        let entries = match self {
            Self::Map(map) => return Ok(map.entries()?),
            Self::Control(entries) => entries,
        };
        let mut found = Vec::new();
        for key in entries.keys() {
            if let Some(value) = self.get(&key)? {
                found.push((key, value));
            }
        }
        Ok(found)
    }
}

impl<K: Pod + Eq + Hash, V: Pod> Entries<K, V> {
    fn set(&self, key: &K, value: &V) -> Result<(), control::Failed> {
        /// As the program reads it: nothing between the two, and nothing behind.
        #[repr(C)]
        #[derive(Clone, Copy)]
        struct Entry<K, V>(K, V);
        const { assert!(size_of::<Entry<K, V>>() == size_of::<K>() + size_of::<V>()) };
        self.control.must(self.operations.set, Entry(*key, *value))?;
        self.written().insert(*key);
        Ok(())
    }

    fn remove(&self, key: &K) -> Result<bool, control::Failed> {
        let was_there = self.control.ask(self.operations.remove, *key)?;
        self.written().remove(key);
        Ok(was_there)
    }

    fn keys(&self) -> Vec<K> {
        self.written().iter().copied().collect()
    }

    fn written(&self) -> MutexGuard<'_, HashSet<K>> {
        // Whoever panicked has left what was written.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<map::Failed> for Failed {
    fn from(failed: map::Failed) -> Self {
        Self::Map(failed)
    }
}

impl From<control::Failed> for Failed {
    fn from(failed: control::Failed) -> Self {
        Self::Control(failed)
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Map(failed) => failed.into(),
            Failed::Control(failed) => failed.into(),
        }
    }
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Map(failed) => failed.into(),
            Failed::Control(failed) => failed.into(),
        }
    }
}
