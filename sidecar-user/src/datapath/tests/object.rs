//! The built object and `abi.rs` agree, without a kernel.

use std::collections::BTreeSet;

use aya_obj::Object;
use sidecar_ebpf::abi::{map, program};

use super::super::install::{
    links::{CONTROL, HOOKS},
    object::OBJECT,
    shape::Shape,
};

fn object() -> Object {
    Object::parse(OBJECT).expect("the object parses")
}

#[test]
fn the_object_holds_the_programs_of_the_abi_and_no_other() {
    let object = object();
    let built: BTreeSet<&str> = object.programs.keys().map(String::as_str).collect();
    assert_eq!(built, BTreeSet::from(program::ALL));
    let mut attached: BTreeSet<&str> = HOOKS.iter().map(|hook| hook.program).collect();
    attached.extend([program::HOLD, program::APPROVE, CONTROL.program]);
    assert_eq!(built, attached, "every program is attached, or run by the shards");
}

#[test]
fn program_names_fit_the_kernel() {
    let by_pod = map::BY_POD.map(|(_, all)| all);
    for name in program::ALL.iter().chain(&map::ALL).chain(&by_pod) {
        assert!(name.len() <= 15, "{name} would be cut");
    }
}

#[test]
fn the_maps_have_the_sizes_of_the_abi() {
    let object = object();
    for name in map::ALL {
        let by_pod = map::BY_POD.into_iter().find(|(own, _)| *own == name);
        let shown = by_pod.map_or(name, |(_, all)| all);
        let built = object.maps.get(shown).unwrap_or_else(|| panic!("no map {shown}"));
        let inner = built.inner().filter(|_| by_pod.is_some());
        let built = inner.as_ref().unwrap_or(built);
        let found = Shape {
            kind: built.map_type(),
            key: built.key_size(),
            value: built.value_size(),
            entries: built.max_entries(),
            flags: built.map_flags(),
        };
        assert_eq!(found, Shape::of(name), "{name}");
        assert!(
            object.maps.contains_key(name),
            "the loader makes {name} of a pod by it"
        );
    }
}

#[test]
fn the_object_may_call_gpl_helpers_and_carries_btf() {
    let object = object();
    assert_eq!(object.license.to_str(), Ok("Dual MIT/GPL"));
    assert!(object.btf.is_some(), "maps are declared in BTF");
}
