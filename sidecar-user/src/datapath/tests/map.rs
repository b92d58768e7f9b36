//! Maps with types, against the kernel's own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytemuck::Zeroable;
use sidecar_ebpf::abi::{
    APP_SOCKET_ENTRIES, AppPorts, AppSocket, INHERITED_SLOTS, Inherited, PENDING_ENTRIES, PRESENTED_ENTRIES,
    Pending, Settings, Tuple, map,
};
use sidecar_ebpf::addr::{Ip, Port};

use super::super::map::Map;
use super::super::sys;
use super::super::{Error, fills};
use super::pod::in_pod;

#[test]
fn a_map_of_other_sizes_is_refused_with_its_name() {
    in_pod(|pod| {
        let _datapath = pod.attach(None);
        let value = pod.map::<u32, [u8; 3]>(map::APP_PORTS).map(drop);
        let key = pod.map::<u64, AppPorts>(map::APP_PORTS).map(drop);
        for refused in [value, key] {
            let error = refused.unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::MapShape {
                        map: map::APP_PORTS,
                        ..
                    }
                ),
                "{error}"
            );
            assert!(error.to_string().contains(map::APP_PORTS), "{error}");
        }
        // Its value is written once for each CPU.
        let by_cpu = Arc::new(per_cpu_array().expect("an array"));
        let by_cpu = Map::<u32, u64>::new("by_cpu", by_cpu).map(drop).unwrap_err();
        assert!(matches!(by_cpu, Error::MapShape { .. }), "{by_cpu}");
        let absent = pod.map::<u32, Settings>("nothing").map(drop).unwrap_err();
        assert!(matches!(absent, Error::Path { .. }), "{absent}");
    });
}

#[test]
fn an_entry_is_there_until_it_is_removed_and_a_full_map_says_so() {
    in_pod(|pod| {
        let _datapath = pod.attach(None);
        let map: Map<u64, AppSocket> = pod.map(map::APP_SOCKETS).expect("a map");
        let of = |port| AppSocket {
            ip: Ip::from_v4(0),
            port: Port::new(port),
            reserved: 0,
        };
        assert!(map.keys().expect("keys").is_empty());
        assert_eq!(map.get(&1).expect("an answer"), None);
        assert!(!map.remove(&1).expect("an answer"));
        for key in 0..3 {
            map.set(&key, &of(key as u16)).expect("room");
        }
        assert_eq!(map.get(&2).expect("an answer"), Some(of(2)));
        let mut entries = map.entries().expect("entries");
        entries.sort_by_key(|(key, _)| *key);
        assert_eq!(entries, [(0, of(0)), (1, of(1)), (2, of(2))]);
        let mut keys = map.keys_at_once(8).expect("keys");
        keys.sort_unstable();
        assert_eq!(keys, [0, 1, 2]);
        let mut at_once = map.entries_at_once(APP_SOCKET_ENTRIES).expect("entries");
        at_once.sort_by_key(|(key, _)| *key);
        assert_eq!(at_once, entries);
        map.retain(|key| *key == 1).expect("an answer");
        assert_eq!(map.keys().expect("keys"), [1]);
        let full = (2..)
            .find_map(|key| map.set(&key, &of(0)).err())
            .expect("it has an end");
        let error = Error::from(full);
        assert!(
            matches!(
                error,
                Error::MapIo {
                    map: map::APP_SOCKETS,
                    ..
                }
            ),
            "{error}"
        );
    });
}

#[test]
fn an_array_is_read_at_once_whether_written_or_not() {
    in_pod(|pod| {
        let _datapath = pod.attach(None);
        let map: Map<u32, Inherited> = pod.map(map::INHERITED).expect("a map");
        let ports = Inherited::NONE.with(80, true);
        map.set(&2, &ports).expect("there is no end of room");
        let entries = map.entries_at_once(INHERITED_SLOTS).expect("entries");
        assert_eq!(entries.len(), INHERITED_SLOTS);
        let written = entries.iter().filter(|(_, ports)| *ports != Inherited::NONE);
        assert_eq!(written.collect::<Vec<_>>(), [&(2, ports)]);
    });
}

fn per_cpu_array() -> io::Result<OwnedFd> {
    const BPF_MAP_CREATE: i32 = 0;
    const BPF_MAP_TYPE_PERCPU_ARRAY: u32 = 6;
    let mut attr: [u32; 5] = [BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 1, 0];
    sys::bpf(BPF_MAP_CREATE, &mut attr).map(sys::owned)
}

/// Of the maps that a connection passes through: each entry counts once, and no more of them than a map has.
#[test]
fn a_fill_counts_entries_as_far_as_there_may_be() {
    in_pod(|pod| {
        let _datapath = pod.attach(None);
        let counted = || {
            let fills = fills(&pod.config.pins).expect("fills");
            fills
                .iter()
                .map(|fill| (fill.map, fill.entries, fill.size))
                .collect::<Vec<_>>()
        };
        let presented = (map::PRESENTED, 0, PRESENTED_ENTRIES);
        assert_eq!(counted(), [(map::PENDING, 0, PENDING_ENTRIES), presented]);
        let pending: Map<Tuple, Pending> = pod.map(map::PENDING).expect("a map");
        for n in 1..=3_u8 {
            let mut tuple = Tuple::zeroed();
            bytemuck::bytes_of_mut(&mut tuple)[0] = n;
            pending.set(&tuple, &Pending::zeroed()).expect("room");
        }
        assert_eq!(counted(), [(map::PENDING, 3, PENDING_ENTRIES), presented]);
        assert_eq!(pending.count(2).expect("entries"), 2);
    });
}
