//! Facts about reading a ring, whose kernel is written here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cursor::{BUSY, DISCARDED, extent};
use super::{Cursor, Parts};

const SIZE: u64 = 256;
const ROOM: usize = 48;

/// The kernel's side of a ring of [`SIZE`] bytes.
struct Kernel {
    consumer: AtomicU64,
    producer: AtomicU64,
    data: Vec<AtomicU64>,
}

impl Kernel {
    fn new(position: u64) -> Self {
        let words = 2 * SIZE as usize / 8;
        Self {
            consumer: AtomicU64::new(position),
            producer: AtomicU64::new(position),
            data: (0..words).map(|_| AtomicU64::new(u64::MAX)).collect(),
        }
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            consumer: &self.consumer,
            producer: &self.producer,
            data: &self.data,
        }
    }

    /// Both of the places that are one to the kernel.
    fn write(&self, position: u64, word: u64) {
        let at = (position % SIZE / 8) as usize;
        self.data[at].store(word, Ordering::Relaxed);
        self.data[at + SIZE as usize / 8].store(word, Ordering::Relaxed);
    }

    fn header(&self, position: u64, len: u32) {
        let [a, b, c, d] = len.to_ne_bytes();
        // What follows the length is the kernel's own.
        self.write(position, u64::from_ne_bytes([a, b, c, d, 0xa5, 0xa5, 0xa5, 0xa5]));
    }

    /// `None`: there is no room.
    fn reserve(&self, bytes: &[u8]) -> Option<u64> {
        let at = self.producer.load(Ordering::Relaxed);
        let end = at.wrapping_add(extent(bytes.len() as u32));
        if end.wrapping_sub(self.consumer.load(Ordering::Relaxed)) > SIZE {
            return None;
        }
        self.header(at, bytes.len() as u32 | BUSY);
        for (word, chunk) in bytes.chunks(8).enumerate() {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            self.write(at.wrapping_add(8 + 8 * word as u64), u64::from_ne_bytes(padded));
        }
        self.producer.store(end, Ordering::Relaxed);
        Some(at)
    }

    fn put(&self, bytes: &[u8]) -> bool {
        let at = self.reserve(bytes);
        at.inspect(|at| self.header(*at, bytes.len() as u32)).is_some()
    }
}

/// As a ring does it.
fn next(cursor: &mut Cursor, kernel: &Kernel) -> Option<Vec<u8>> {
    let mut record = [0; ROOM];
    let len = cursor.next(&kernel.parts(), &mut record)?;
    Some(record[..len].to_vec())
}

#[test]
fn records_come_in_order_across_the_end_of_the_ring_again_and_again() {
    for start in [0, SIZE - 8, u64::MAX - 63] {
        let kernel = Kernel::new(start);
        let mut cursor = Cursor::new(&kernel.parts());
        for round in 0..100_u8 {
            let of = |n: u8| vec![round ^ n; 1 + usize::from(round.wrapping_add(n)) % (ROOM - 1)];
            for n in 0..3 {
                assert!(kernel.put(&of(n)), "there is room for what was read");
            }
            for n in 0..3 {
                assert_eq!(next(&mut cursor, &kernel), Some(of(n)), "{start}: round {round}");
            }
            assert_eq!(next(&mut cursor, &kernel), None);
        }
    }
}

#[test]
fn a_record_that_is_not_finished_is_waited_for_also_by_those_behind_it() {
    let kernel = Kernel::new(0);
    let mut cursor = Cursor::new(&kernel.parts());
    let first = kernel.reserve(b"first").expect("room");
    assert!(kernel.put(b"second"));
    assert_eq!(next(&mut cursor, &kernel), None);
    assert_eq!(
        kernel.consumer.load(Ordering::Relaxed),
        first,
        "or the kernel would not wake for it"
    );
    kernel.header(first, 5);
    assert_eq!(next(&mut cursor, &kernel), Some(b"first".to_vec()));
    assert_eq!(next(&mut cursor, &kernel), Some(b"second".to_vec()));
}

#[test]
fn a_discarded_record_is_passed_and_its_room_given_back() {
    let kernel = Kernel::new(0);
    let mut cursor = Cursor::new(&kernel.parts());
    for _ in 0..SIZE {
        let discarded = kernel.reserve(&[1; 40]).expect("room");
        kernel.header(discarded, 40 | DISCARDED);
        assert!(kernel.put(b"kept"));
        assert_eq!(next(&mut cursor, &kernel), Some(b"kept".to_vec()));
    }
    let last = kernel.reserve(&[1; 40]).expect("room");
    kernel.header(last, 40 | DISCARDED);
    assert_eq!(next(&mut cursor, &kernel), None);
    let [read, written] = [&kernel.consumer, &kernel.producer].map(|at| at.load(Ordering::Relaxed));
    assert_eq!(read, written);
}

#[test]
fn a_new_reader_goes_on_where_the_last_one_left_off() {
    let kernel = Kernel::new(0);
    for record in [b"a", b"b", b"c"] {
        assert!(kernel.put(record));
    }
    let mut first = Cursor::new(&kernel.parts());
    assert_eq!(next(&mut first, &kernel), Some(b"a".to_vec()));
    let mut second = Cursor::new(&kernel.parts());
    assert_eq!(next(&mut second, &kernel), Some(b"b".to_vec()));
}

#[test]
fn a_record_that_has_no_room_is_cut_and_the_next_one_is_found() {
    let kernel = Kernel::new(0);
    let mut cursor = Cursor::new(&kernel.parts());
    assert!(kernel.put(&[7; ROOM + 9]) && kernel.put(b"next"));
    assert_eq!(next(&mut cursor, &kernel), Some(vec![7; ROOM]));
    assert_eq!(next(&mut cursor, &kernel), Some(b"next".to_vec()));
}

#[test]
fn what_is_damaged_is_skipped_and_what_comes_later_is_read() {
    type Damage = fn(&Kernel);
    let damages: [(&str, Damage); 4] = [
        ("a length beyond what was written", |kernel| {
            kernel.header(0, 4096)
        }),
        ("the longest there is", |kernel| kernel.header(0, DISCARDED - 1)),
        ("discarded, and longer", |kernel| {
            kernel.header(0, DISCARDED | 4096);
        }),
        ("more written than there is room", |kernel| {
            kernel.producer.store(4 * SIZE, Ordering::Relaxed);
        }),
    ];
    for (what, damage) in damages {
        let kernel = Kernel::new(0);
        let mut cursor = Cursor::new(&kernel.parts());
        assert!(kernel.put(b"damaged") && kernel.put(b"behind it"));
        damage(&kernel);
        assert_eq!(next(&mut cursor, &kernel), None, "{what}");
        assert!(kernel.put(b"later"), "{what}: its room was given back");
        assert_eq!(next(&mut cursor, &kernel), Some(b"later".to_vec()), "{what}");
    }
}

/// Programs reserve, finish and discard records in any order, as CPUs do, and a reader comes now and then.
#[test]
fn each_finished_record_is_read_once_in_the_order_of_their_room() {
    for seed in 0..200 {
        let random = &mut fastrand::Rng::with_seed(seed);
        let kernel = Kernel::new(random.u64(..) & !7);
        let mut cursor = Cursor::new(&kernel.parts());
        // What is in the ring, in order: its place, its bytes, and what has become of it.
        let mut ring: VecDeque<(u64, Vec<u8>, Option<bool>)> = VecDeque::new();
        for _ in 0..400 {
            match random.u8(..4) {
                0 | 1 => {
                    let bytes: Vec<u8> = (0..random.usize(..=ROOM)).map(|_| random.u8(..)).collect();
                    if let Some(at) = kernel.reserve(&bytes) {
                        ring.push_back((at, bytes, None));
                    }
                }
                2 => {
                    let open = ring.iter_mut().filter(|(_, _, became)| became.is_none());
                    let mut open: Vec<_> = open.collect();
                    if !open.is_empty() {
                        let chosen = random.usize(..open.len());
                        let (at, bytes, became) = &mut *open[chosen];
                        let kept = random.u8(..4) != 0;
                        let flag = if kept { 0 } else { DISCARDED };
                        kernel.header(*at, bytes.len() as u32 | flag);
                        *became = Some(kept);
                    }
                }
                _ => {
                    while ring.front().is_some_and(|(_, _, became)| *became == Some(false)) {
                        ring.pop_front();
                    }
                    let wanted = match ring.front() {
                        Some((_, _, Some(true))) => ring.pop_front().map(|(_, bytes, _)| bytes),
                        _ => None,
                    };
                    assert_eq!(next(&mut cursor, &kernel), wanted, "seed {seed}");
                }
            }
        }
    }
}
