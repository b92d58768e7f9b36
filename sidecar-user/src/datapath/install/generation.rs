//! Which of the listener slots are a proxy's own. A proxy that takes a pod over fills other slots than the one before it,
//! which goes on waiting for connections on their way to it.
//!
//! A generation is taken by flock(2) on a directory of its own below the pins, as the lease is: the kernel gives it up with
//! the process. So whoever comes next finds the free ones without asking anybody.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use sidecar_ebpf::abi::{GENERATIONS, MAX_SHARDS, Settings};

use super::super::Error;
use super::locks;

/// A proxy's part of the slots, until it is dropped.
#[derive(Debug)]
pub struct Generation {
    number: usize,
    lock: File,
}

impl Generation {
    /// One in which nobody has listeners. Not the one in force: what is held for it, by a proxy that has died perhaps, has to
    /// be told to another.
    pub(super) fn take(pins: &Path, in_force: &Settings) -> Result<Self, Error> {
        let current = usize::from(in_force.first_shard) / MAX_SHARDS;
        for number in (1..GENERATIONS).map(|n| (current + n) % GENERATIONS) {
            let path = directory(pins, number);
            fs::create_dir_all(&path).map_err(Error::path("pins", &path))?;
            let lock = File::open(&path).map_err(Error::path("pins", &path))?;
            if locks::take(&lock, &path)? {
                return Ok(Self { number, lock });
            }
        }
        Err(Error::NoGeneration { pins: pins.into() })
    }

    /// The one that another process hands over by its descriptor, which has the lock.
    pub fn received(number: usize, lock: OwnedFd) -> Self {
        Self {
            number,
            lock: lock.into(),
        }
    }

    /// For handing it over.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.lock.as_fd().try_clone_to_owned()
    }

    pub fn number(&self) -> usize {
        self.number
    }

    /// Its first shard, counted through all generations.
    pub fn first_shard(&self) -> u32 {
        (self.number * MAX_SHARDS) as u32
    }
}

/// The process that serves the pod, whoever has taken the lease first.
pub(super) fn holder(pins: &Path, in_force: &Settings) -> Option<u32> {
    let number = usize::from(in_force.first_shard) / MAX_SHARDS;
    locks::holder(&File::open(directory(pins, number)).ok()?)
}

/// Whether nobody has listeners in it any more.
pub(super) fn is_free(pins: &Path, number: usize) -> bool {
    // Let go at once: whoever asks has the lease, or had it, and nobody else takes a generation.
    let free = |lock: File| lock.try_lock().is_ok();
    File::open(directory(pins, number)).map_or(true, free)
}

pub(super) fn directories(pins: &Path) -> impl Iterator<Item = PathBuf> {
    let below = (0..GENERATIONS).map(|number| directory(pins, number));
    below.chain([pins.join("generations")])
}

fn directory(pins: &Path, number: usize) -> PathBuf {
    pins.join("generations").join(number.to_string())
}
