//! The few connections that there are.

use super::super::Key;
use crate::model::{HeldSyn, OriginalDst, Pair};

pub(super) fn pair(port: u16) -> Pair {
    Pair {
        client: ([127, 0, 0, 1], 40_000 + port).into(),
        listener: ([127, 0, 0, 1], 15_001).into(),
    }
}

/// Ports in turn go to two destinations.
pub(super) fn syn(key: Key) -> HeldSyn {
    let to = [192, 0, 2, (key.pair.client.port() % 2) as u8];
    HeldSyn {
        pair: key.pair,
        sequence: key.sequence,
        original_dst: OriginalDst::new((to, 80).into()),
        source: None,
        device: None,
        traffic_class: 0,
        header: Vec::new(),
    }
}
