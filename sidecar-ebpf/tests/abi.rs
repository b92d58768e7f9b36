//! The boundary types and their version change together.

use sidecar_ebpf::abi::{ABI_VERSION, Counter};

/// The version, and the hash of `abi.rs` that belongs to it.
const RELEASED: (u32, u64) = (5, 0x17fb_a57d_af50_2622);

#[test]
fn a_change_of_the_boundary_types_asks_for_a_new_version() {
    let hash = fnv1a(&significant(include_str!("../src/abi.rs")));
    assert_eq!(
        (ABI_VERSION, hash),
        RELEASED,
        "abi.rs has changed: if a type, a name or a size did, raise ABI_VERSION; then write both numbers here \
         ({ABI_VERSION}, {hash:#018x})"
    );
}

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

#[test]
fn comments_and_blank_lines_do_not_count() {
    assert_eq!(
        significant("//! a\n\npub struct A;\n    /// b\n"),
        "pub struct A;\n"
    );
}

fn significant(source: &str) -> String {
    source
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
