//! The kernel programs: one file a hook, each a translator from its context to `sidecar_ebpf::verdict` and back.
//!
//! Decides nothing, and knows nothing of policy, identity or TLS.

#![no_std]
#![no_main]
// For one atomic addition; the compilers that build for BPF take unstable features, or there is no `core`.
#![feature(asm_experimental_arch)]

mod hooks;
mod maps;
mod storage;

/// What the helpers that these programs call demand.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Nothing here can panic, or the verifier would refuse it: the kernel has nowhere to jump to.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
