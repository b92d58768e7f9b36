//! What a pod costs in kernel memory before it has connected to anybody.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use sidecar_ebpf::abi::{RING_BYTES, map};

use super::super::install::pins;
use super::super::map::ring;
use super::super::sys;
use super::pod::in_pod;

/// The maps are allocated for each pod of a node, and no cgroup's statistics show them to whoever runs the pod.
const MOST: u64 = 640 << 10;
/// Of a pod that an agent has installed, and that has no sidecar yet.
const MOST_WITHOUT_RINGS: u64 = 480 << 10;
/// A proxy has two shards unless it is told otherwise, and each has a ring.
const SHARDS: u64 = 2;
/// `BPF_MAP_TYPE_HASH` and `BPF_MAP_TYPE_ARRAY`.
const HASH: u64 = 1;
const ARRAY: u64 = 2;

#[test]
fn the_maps_of_a_pod_take_little_memory_before_the_first_connection() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let _datapath = pod.attach(Some(&inbound));
        let ring = ring(RING_BYTES as u32).expect("a ring");
        let mut taken = vec![("rings", SHARDS * memory(ring.as_fd()))];
        for name in map::ALL {
            let map = sys::open_pin(&pins::map(&pod.config.pins, name)).expect(name);
            taken.push((name, memory(map.as_fd())));
        }
        if memory(ring.as_fd()) == 0 {
            // Before 6.4 the kernel does not measure: it prints what the map would take if it were full, and nothing of a
            // ring. What a hash takes from the beginning is its buckets, of 16 bytes each, and an array takes all.
            taken.iter_mut().for_each(|(_, bytes)| *bytes = 0);
            for (name, bytes) in &mut taken[1..] {
                let map = sys::open_pin(&pins::map(&pod.config.pins, name)).expect(name);
                let entries = field(map.as_fd(), "max_entries:");
                *bytes = match field(map.as_fd(), "map_type:") {
                    HASH => 16 * entries.next_power_of_two(),
                    ARRAY => entries * field(map.as_fd(), "value_size:").next_multiple_of(8),
                    _ => 0,
                };
            }
            taken[0].1 = SHARDS * RING_BYTES as u64;
        }
        taken.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let sum: u64 = taken.iter().map(|(_, bytes)| bytes).sum();

        assert!(sum <= MOST, "{sum} bytes: {taken:?}");
        let rings = taken
            .iter()
            .find(|(name, _)| *name == "rings")
            .map_or(0, |(_, bytes)| *bytes);
        assert!(sum - rings <= MOST_WITHOUT_RINGS, "{sum} bytes: {taken:?}");
    });
}

/// Of one map, in bytes, as the kernel charges it.
fn memory(map: BorrowedFd<'_>) -> u64 {
    field(map, "memlock:")
}

fn field(map: BorrowedFd<'_>, name: &str) -> u64 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).expect("fdinfo");
    let value = info.lines().find_map(|line| line.strip_prefix(name));
    value.expect("a map").trim().parse().expect("a number")
}
