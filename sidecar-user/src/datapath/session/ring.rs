//! A shard's ring: takes out what the programs put in, by mmap(2) and epoll(7) of a descriptor, without bpf(2).
//!
//! The kernel's side is `kernel/bpf/ringbuf.c`. A ring is three parts of memory: a page with the position up to which records
//! were read, which this process writes; a page with the position up to which room was given to records; and the data, which
//! the kernel maps twice in a row, so that no record is cut by the end. Positions only grow; a record is a header of 8 bytes,
//! of which the first four are its length and two flags, and its bytes, rounded up to 8.
//!
//! Maps them; `cursor.rs` reads. Neither knows what records mean.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use sidecar_ebpf::abi::{Event, LeftAlone, RING_BYTES};

use super::super::sys;
use super::memory::{Access, Memory, page};

mod cursor;
#[cfg(test)]
mod tests;

pub(super) use cursor::{Cursor, Parts};

const WORD: usize = size_of::<u64>();
/// A record is copied out as far as it fits here. One word more than the longest of the programs' records has: one that is longer
/// does not become one of them by being cut.
const ROOM: usize = longer(size_of::<Event>(), size_of::<LeftAlone>()) + WORD;

// The kernel's positions are as long as its `unsigned long`.
const _: () = assert!(size_of::<usize>() == WORD && ROOM < RING_BYTES);

const fn longer(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// There may be one for a ring at a time: two would take each other's records.
pub(in super::super) struct Ring {
    fd: OwnedFd,
    consumer: Memory,
    producer: Memory,
    cursor: Cursor,
    record: [u8; ROOM],
}

impl Ring {
    /// Refuses a ring that is not of [`RING_BYTES`], and what is no ring.
    pub(in super::super) fn new(ring: OwnedFd) -> io::Result<Self> {
        let (fd, page, data) = (ring.as_fd(), page(), 2 * RING_BYTES);
        let mapped = || {
            let consumer = Memory::of(fd, 0, page, Access::Write)?;
            let producer = Memory::of(fd, page, page + data, Access::Read)?;
            Memory::ends_after(fd, 2 * page + data)?;
            Ok((consumer, producer))
        };
        let (consumer, producer) = mapped().map_err(|source: io::Error| {
            let remedy = "let the same version install and serve";
            let told = format!("the descriptor is of no ring of {RING_BYTES} bytes ({source}); {remedy}");
            io::Error::new(source.kind(), told)
        })?;
        let cursor = Cursor::new(&parts(&consumer, &producer));
        Ok(Self {
            fd: ring,
            consumer,
            producer,
            cursor,
            record: [0; ROOM],
        })
    }

    /// The next record. `None`: the kernel wakes whoever waits for the descriptor when there is another one.
    pub(in super::super) fn next(&mut self) -> Option<&[u8]> {
        let parts = parts(&self.consumer, &self.producer);
        let len = self.cursor.next(&parts, &mut self.record)?;
        Some(&self.record[..len])
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl sys::Ring for Ring {}

fn parts<'m>(consumer: &'m Memory, producer: &'m Memory) -> Parts<'m> {
    let words = producer.words();
    Parts {
        consumer: &consumer.words()[0],
        producer: &words[0],
        data: &words[page() / WORD..],
    }
}
