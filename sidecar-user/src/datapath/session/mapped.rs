//! Arrays of the programs, mapped and with the type of their values: what a session reads again and again costs no system call,
//! and takes no bpf(2).
//!
//! The kernel maps a descriptor only where it is for reading and writing, also for reading alone: one with `BPF_F_RDONLY` is
//! refused (EINVAL). So what a process may not write it must be refused by `BPF_MAP_FREEZE`, not by its descriptor.
//!
//! A value is read word by word, so each of its words is whole, and the value may be half of an older one. That is how the
//! programs see it, too.

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Pod;

use super::super::Error;
use super::memory::{Access, Memory, page};

const WORD: usize = size_of::<AtomicU64>();

/// An array that this process may read. Cheap to clone.
#[derive(Debug)]
pub(in super::super) struct Mapped<T> {
    memory: Arc<Memory>,
    slots: usize,
    values: PhantomData<fn() -> T>,
}

/// An array that this process may write, too: one that no program writes.
#[derive(Debug)]
pub(in super::super) struct Writable<T>(Mapped<T>);

impl<T> Clone for Mapped<T> {
    fn clone(&self) -> Self {
        Self {
            memory: self.memory.clone(),
            ..*self
        }
    }
}

impl<T: Pod> Mapped<T> {
    /// Refuses what has not as many pages as this many values take: another map, one of another version, one that was not made
    /// to be mapped, and what is no map.
    pub(in super::super) fn new(
        name: &'static str,
        map: BorrowedFd<'_>,
        slots: usize,
    ) -> Result<Self, Error> {
        Self::with(Access::Read, name, map, slots)
    }

    fn with(access: Access, name: &'static str, map: BorrowedFd<'_>, slots: usize) -> Result<Self, Error> {
        const {
            // The kernel rounds the size of a value up to that, and has no room between values then.
            assert!(size_of::<T>().is_multiple_of(WORD) && align_of::<T>() <= WORD);
        }
        let bytes = slots * size_of::<T>();
        let memory = Memory::of(map, 0, bytes, access)
            .and_then(|memory| Memory::ends_after(map, bytes.next_multiple_of(page())).map(|()| memory));
        let memory = memory.map_err(|source| Error::MapMemory {
            map: name,
            bytes,
            source,
        })?;
        Ok(Self {
            memory: Arc::new(memory),
            slots,
            values: PhantomData,
        })
    }

    /// Panics where there is no such value, as a slice does.
    pub(in super::super) fn get(&self, slot: u32) -> T {
        let mut value = T::zeroed();
        let words = bytemuck::bytes_of_mut(&mut value).chunks_exact_mut(WORD);
        for (to, from) in words.zip(self.words(slot)) {
            to.copy_from_slice(&from.load(Ordering::Acquire).to_ne_bytes());
        }
        value
    }

    /// All values, in order.
    pub(in super::super) fn values(&self) -> impl Iterator<Item = (u32, T)> {
        (0..).take(self.slots).map(|slot| (slot, self.get(slot)))
    }

    fn words(&self, slot: u32) -> &[AtomicU64] {
        let words = size_of::<T>() / WORD;
        let all = &self.memory.words()[..self.slots * words];
        &all[slot as usize * words..][..words]
    }
}

impl<T: Pod> Writable<T> {
    /// As [`Mapped::new`].
    pub(in super::super) fn new(
        name: &'static str,
        map: BorrowedFd<'_>,
        slots: usize,
    ) -> Result<Self, Error> {
        Mapped::with(Access::Write, name, map, slots).map(Self)
    }

    /// Panics where there is no such value, as a slice does.
    pub(in super::super) fn set(&self, slot: u32, value: &T) {
        let words = bytemuck::bytes_of(value).chunks_exact(WORD);
        for (from, to) in words.zip(self.0.words(slot)) {
            let word = from.try_into().expect("a chunk is as long as a word");
            to.store(u64::from_ne_bytes(word), Ordering::Release);
        }
    }

    /// For reading.
    pub(in super::super) fn read(&self) -> &Mapped<T> {
        &self.0
    }
}
