//! What a door is told, and what it tells: numbers only.

use std::time::Duration;

/// Of one door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that may wait at the same time.
    pub places: usize,
    /// Of those, from one source: an IPv4 address, or a /64 of IPv6, which is what one host can have for itself.
    pub per_source: usize,
    /// How long a connection may take until its first byte.
    pub first_byte: Duration,
    /// The same while more than half of the places, or of the source's quota, are taken.
    pub first_byte_under_pressure: Duration,
}

/// What a door tells the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that wait now.
    pub waiting: usize,
    /// Evicted since the start, because their source had used up its quota.
    pub evicted_by_quota: u64,
    /// Evicted since the start, because all places were taken.
    pub evicted_when_full: u64,
}
