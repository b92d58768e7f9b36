//! Where a reader of a ring is, and what it finds there. Works on any memory, so that tests and fuzzers write the kernel's part.
//!
//! Believes no number in it: whatever a header says, nothing outside of the memory is read.

use std::sync::atomic::{AtomicU64, Ordering, fence};

const WORD: usize = size_of::<u64>();
const HEADER: u64 = 8;
/// The program has not finished the record (`BPF_RINGBUF_BUSY_BIT`).
pub(super) const BUSY: u32 = 1 << 31;
/// The program wants nobody to read it (`BPF_RINGBUF_DISCARD_BIT`).
pub(super) const DISCARDED: u32 = 1 << 30;

/// The memory of a ring.
pub(in super::super) struct Parts<'m> {
    /// Up to where records were read.
    pub(in super::super) consumer: &'m AtomicU64,
    /// Up to where there are records, finished or not.
    pub(in super::super) producer: &'m AtomicU64,
    /// The data twice: a power of two of bytes, and the same again.
    pub(in super::super) data: &'m [AtomicU64],
}

pub(in super::super) struct Cursor {
    position: u64,
    /// Whether the kernel may not have seen yet how far was read.
    moved: bool,
}

/// What is at a position.
enum Found {
    /// The end, or a record that is not finished.
    Nothing,
    Record(u32),
    Discarded(u32),
    /// What no kernel writes.
    Damage,
}

impl Cursor {
    /// Where whoever has read before has left off.
    pub(in super::super) fn new(parts: &Parts<'_>) -> Self {
        Self {
            position: parts.consumer.load(Ordering::Acquire),
            moved: false,
        }
    }

    /// Copies the next record out, and answers its length, or how much has found room.
    pub(in super::super) fn next(&mut self, parts: &Parts<'_>, record: &mut [u8]) -> Option<usize> {
        loop {
            match self.look(parts) {
                // A program that finishes a record wakes the reader only where it finds that everything before was read. So
                // after the last word of how far was read either the reader sees the record, or the program sees that word:
                // a full barrier on both sides (the kernel's is an exchange), and another look.
                Found::Nothing if self.moved => {
                    fence(Ordering::SeqCst);
                    self.moved = false;
                }
                Found::Nothing => return None,
                Found::Discarded(len) => self.advance(parts, len),
                Found::Record(len) => {
                    let len_copied = parts.copy(self.position.wrapping_add(HEADER), len as usize, record);
                    self.advance(parts, len);
                    return Some(len_copied);
                }
                Found::Damage => {
                    let to = parts.producer.load(Ordering::Acquire);
                    tracing::error!(
                        from = self.position,
                        to,
                        "a ring of the kernel is damaged, and what is in it is skipped: clients send their SYNs again; \
                         see that no other process reads this pod's rings"
                    );
                    self.move_to(parts, to);
                }
            }
        }
    }

    fn look(&self, parts: &Parts<'_>) -> Found {
        let ahead = parts.producer.load(Ordering::Acquire).wrapping_sub(self.position);
        if ahead == 0 {
            return Found::Nothing;
        }
        if ahead > parts.size() || !self.position.is_multiple_of(WORD as u64) {
            return Found::Damage;
        }
        // After this the bytes are those that the program has finished.
        let header = parts.word(self.position).load(Ordering::Acquire).to_ne_bytes();
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        if len & BUSY != 0 {
            return Found::Nothing;
        }
        match len & !DISCARDED {
            bytes if extent(bytes) > ahead => Found::Damage,
            bytes if len & DISCARDED != 0 => Found::Discarded(bytes),
            bytes => Found::Record(bytes),
        }
    }

    fn advance(&mut self, parts: &Parts<'_>, len: u32) {
        self.move_to(parts, self.position.wrapping_add(extent(len)));
    }

    /// The kernel gives the room of what was read to new records from now on.
    fn move_to(&mut self, parts: &Parts<'_>, position: u64) {
        self.position = position;
        self.moved = true;
        parts.consumer.store(position, Ordering::Release);
    }
}

/// What a record takes of the ring.
pub(super) fn extent(len: u32) -> u64 {
    (HEADER + u64::from(len)).next_multiple_of(WORD as u64)
}

impl Parts<'_> {
    /// Of the data, once.
    fn size(&self) -> u64 {
        (self.data.len() / 2 * WORD) as u64
    }

    /// Somewhere in the first half, whatever the position.
    fn word(&self, position: u64) -> &AtomicU64 {
        &self.data[self.index(position)]
    }

    fn index(&self, position: u64) -> usize {
        (position & (self.size() - 1)) as usize / WORD
    }

    /// As much as there is room. What begins in the first half and is not longer than that ends in the second one.
    fn copy(&self, position: u64, len: usize, into: &mut [u8]) -> usize {
        let len = len.min(into.len());
        let words = &self.data[self.index(position)..];
        for (to, from) in into[..len].chunks_mut(WORD).zip(words) {
            let word = from.load(Ordering::Relaxed).to_ne_bytes();
            to.copy_from_slice(&word[..to.len()]);
        }
        len
    }
}
