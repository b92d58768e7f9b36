//! The counters keep their meaning. What maps are made of is watched by `schema.rs`.

use sidecar_ebpf::abi::Counter;

/// Counts outlive the proxy that has begun them, in a map of numbers: what a number stands for does not change.
#[test]
fn new_counters_come_after_those_that_there_were() {
    /// How many there were, and the hash of their names.
    const RELEASED: (usize, u64) = (32, 0x2c0b_3497_01df_1aef);
    let (count, hash) = RELEASED;
    let names: String = Counter::ALL
        .iter()
        .take(count)
        .map(|(_, name)| format!("{name}\n"))
        .collect();
    assert_eq!(
        fnv1a(&names),
        hash,
        "put new counters behind the first {count}, and write the new hash here ({:#018x})",
        fnv1a(&names)
    );
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
