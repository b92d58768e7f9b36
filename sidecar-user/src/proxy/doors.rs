//! The proxy's doors to the network: how many may stand there who have proved nothing. One set for all shards.

use std::time::Duration;

use crate::admission::{Admission, Limits};

/// TLS handshakes of strangers take a descriptor and some 20 KiB each.
const HBONE_PLACES: usize = 2048;
/// Plaintext connections that have not sent a byte take two descriptors, and some 5 KiB each.
const PLAINTEXT_PLACES: usize = 4096;
/// Of all descriptors, where they are few: what is left is for those who have proved something.
const DESCRIPTORS_PART: usize = 4;
/// Of all places, for one source. Many pods may come from the one address of a gateway or of a node that masquerades.
const SOURCE_PART: usize = 4;
/// The same in plaintext, where one client may well open many connections at once before it sends on any of them.
const PLAINTEXT_SOURCE_PART: usize = 2;

/// The whole handshake is bounded besides. A peer's ClientHello follows its SYN at once; 10 s leave room for the three
/// times that a lost segment is sent again.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// A segment that is lost once comes after 1 s.
const FIRST_BYTE_UNDER_PRESSURE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub(super) struct Doors {
    /// A connection proves itself by a certificate.
    pub(super) hbone: Admission,
    /// By the first byte that it sends to the application: there is nothing else to go by.
    pub(super) plaintext: Admission,
}

impl Doors {
    /// For a process that may open so many files.
    pub(super) fn new(files: usize) -> Self {
        Self {
            hbone: door(HBONE_PLACES.min(files / DESCRIPTORS_PART), SOURCE_PART),
            plaintext: door(
                PLAINTEXT_PLACES.min(files / DESCRIPTORS_PART / 2),
                PLAINTEXT_SOURCE_PART,
            ),
        }
    }

    /// Each with its name in metrics.
    pub(super) fn named(&self) -> [(&'static str, &Admission); 2] {
        [("hbone", &self.hbone), ("plaintext", &self.plaintext)]
    }
}

fn door(places: usize, source_part: usize) -> Admission {
    let places = places.max(16);
    Admission::new(Limits {
        places,
        per_source: (places / source_part).max(8),
        first_byte: FIRST_BYTE,
        first_byte_under_pressure: FIRST_BYTE_UNDER_PRESSURE,
    })
}
