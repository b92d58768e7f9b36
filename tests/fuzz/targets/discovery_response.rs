//! Fuzzes what `discovery_response` in `sidecar-user/src/fuzzing/mod.rs` reads; what has to hold is said there.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger::fuzzing::run(env!("CARGO_BIN_NAME"), data));
