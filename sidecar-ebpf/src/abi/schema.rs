//! The version of each map's layout: of its key and value, and of what they mean.
//!
//! An upgrade keeps the pinned maps whose version is the same, with all that they hold; the others begin empty. So a
//! version goes up when the map's type, size, key or value changes (`tests/schema.rs` notices), or when the same bytes
//! come to mean something else (nobody but the author notices).

use super::map;

/// Maps and the versions of their layouts.
pub const VERSIONS: [(&str, u32); map::ALL.len()] = [
    (map::ORIGIN, 1),
    (map::PENDING, 2),
    (map::PRESENTED, 2),
    (map::BYPASS, 1),
    (map::WATCHED, 1),
    (map::LISTENERS, 3),
    (map::APP_PORTS, 5),
    (map::APP_SOCKETS, 2),
    (map::INHERITED, 4),
    (map::POLICY, 2),
    (map::ROUTES, 1),
    (map::RINGS, 2),
    (map::SETTINGS, 4),
    (map::COUNTERS, 2),
    (map::SECRET, 1),
    (map::ANSWERS, 1),
    (map::HOST, 1),
    (map::PROBES, 1),
];

/// Maps that say something only together, and so are kept together or not at all.
pub const TOGETHER: [&[&str]; 2] = [
    // The settings say which entries of the policy count.
    &[map::SETTINGS, map::POLICY],
    // A socket that ends is taken off the count of its port.
    &[map::APP_PORTS, map::APP_SOCKETS],
];

/// Maps whose layout never changes: what else a later version has to say gets a map of its own. A proxy that was taken over
/// goes on dialling, and marks its sockets here. The programs of its successor, which alone are asked about connects from then
/// on, would find no mark in a map of another layout, and redirect the connections of a proxy.
pub const FROZEN: [&str; 1] = [map::BYPASS];

/// The version of a map's layout.
pub fn version(map: &str) -> u32 {
    let known = VERSIONS.iter().find(|(name, _)| *name == map);
    known.map_or(1, |(_, version)| *version)
}
