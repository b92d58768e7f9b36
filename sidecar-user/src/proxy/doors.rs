//! The proxy's doors to the network, and the one to the application: how many may stand there who have proved nothing, or
//! whom the application has not accepted. One set for all shards.

use std::time::Duration;

use crate::admission::{Admission, Limits};
use crate::datapath::PRESENTED_ENTRIES;

/// TLS handshakes of strangers take a descriptor and some 20 KiB each.
const HBONE_PLACES: usize = 2048;
/// Plaintext connections that have not sent a byte take two descriptors, and some 5 KiB each.
const PLAINTEXT_PLACES: usize = 4096;
/// Connections that the application has not accepted. The kernel side refuses those for whose client it has no room, so
/// they stay below that. The rest of the room is for those that are connected and wait in the application's own queue,
/// which is as long as its backlog.
const APPLICATION_PLACES: usize = PRESENTED_ENTRIES * 3 / 4;
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
    /// By being accepted by the application.
    pub(super) application: Admission,
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
            application: application(),
        }
    }

    /// Each with its name in metrics.
    pub(super) fn named(&self) -> [(&'static str, &Admission); 3] {
        [
            ("hbone", &self.hbone),
            ("plaintext", &self.plaintext),
            ("application", &self.application),
        ]
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

/// Half of it for one source: peers have proved who they are, and thousands of their connections may come at once. The
/// timeout of the dial ends the wait for a first answer.
fn application() -> Admission {
    Admission::new(Limits {
        places: APPLICATION_PLACES,
        per_source: APPLICATION_PLACES / 2,
        first_byte: FIRST_BYTE,
        first_byte_under_pressure: FIRST_BYTE,
    })
}
