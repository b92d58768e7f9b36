//! The name of a map with the version of its layout.

use sidecar_ebpf::abi::schema::version;

/// As its pin and its descriptor are called: two versions of Outrigger share the maps whose layout is the same, and neither
/// opens the others. The first version has no number, and a bpffs takes no dot.
pub(super) fn versioned(map: &str) -> String {
    match version(map) {
        1 => map.into(),
        version => format!("{map}_v{version}"),
    }
}
