//! The kernel's records, and the memory that they are read from, as bytes.

use std::sync::atomic::{AtomicU64, Ordering};

use super::hold;
use super::ring::{Cursor, Parts};
use crate::model::HeldEvent;

/// Asserts nothing: what becomes of an event is asserted where it is answered.
pub(crate) fn held_event(record: &[u8]) -> Option<HeldEvent> {
    hold::held_event(record)
}

/// Two positions, of 8 bytes each, and the data of a ring, which is the start of it where they are more than a power of two.
/// Reading ends, and the reader says what it has read; that nothing outside of the memory is read, the slices see to.
pub(crate) fn ring(memory: &[u8]) -> Result<String, String> {
    let words: Vec<u64> = memory
        .chunks_exact(8)
        .map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")))
        .collect();
    let [consumer, producer, data @ ..] = words.as_slice() else {
        return Err("it has no positions".into());
    };
    let size = match data.len() {
        0 => return Err("it has no data".into()),
        len => 1 << len.ilog2(),
    };
    let [consumer, producer] = [*consumer, *producer].map(AtomicU64::new);
    let data: Vec<AtomicU64> = [&data[..size], &data[..size]]
        .concat()
        .into_iter()
        .map(AtomicU64::new)
        .collect();
    let parts = Parts {
        consumer: &consumer,
        producer: &producer,
        data: &data,
    };
    let (mut cursor, mut room, mut records) = (Cursor::new(&parts), [0; 40], 0);
    while let Some(len) = cursor.next(&parts, &mut room) {
        assert!(len <= room.len(), "{len} bytes in a room of {}", room.len());
        records += 1;
        assert!(records <= size, "a record takes a word at least");
    }
    let left = producer
        .load(Ordering::Relaxed)
        .wrapping_sub(consumer.load(Ordering::Relaxed));
    assert!(
        left <= size as u64 * 8,
        "{left} bytes are left, and nobody reads them"
    );
    match records {
        0 => Err("nothing to read".into()),
        _ => Ok(format!("{records} records")),
    }
}
