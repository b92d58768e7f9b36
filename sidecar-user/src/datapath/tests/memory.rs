//! What a pod costs in kernel memory before it has connected to anybody.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use sidecar_ebpf::abi::{RING_BYTES, map};

use super::super::map::ring;
use super::super::{pins, sys};
use super::pod::in_pod;

/// The maps are allocated for each pod of a node, and no cgroup's statistics show them to whoever runs the pod.
const MOST: u64 = 1 << 20;
/// A proxy has two shards unless it is told otherwise, and each has a ring.
const SHARDS: u64 = 2;

#[test]
fn the_maps_of_a_pod_take_less_than_a_megabyte_before_the_first_connection() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let _datapath = pod.attach(Some(&inbound));
        let ring = ring(RING_BYTES as u32).expect("a ring");
        let mut taken = vec![("rings", SHARDS * memory(ring.as_fd()))];
        for name in map::ALL {
            let map = sys::open_pin(&pins::map(&pod.config.pins, name)).expect(name);
            taken.push((name, memory(map.as_fd())));
        }
        taken.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let sum: u64 = taken.iter().map(|(_, bytes)| bytes).sum();

        assert!(sum <= MOST, "{sum} bytes: {taken:?}");
    });
}

/// Of one map, in bytes, as the kernel charges it.
fn memory(map: BorrowedFd<'_>) -> u64 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).expect("fdinfo");
    let memlock = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    memlock.expect("a map").trim().parse().expect("a number")
}
