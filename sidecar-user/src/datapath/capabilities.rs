//! What the kernel lets this process do (capabilities(7)).

use std::fs;
use std::io;

use super::sys;

/// Whether bpf(2) asks for CAP_BPF also for maps of which a process has a descriptor: before Linux 5.19 it does where
/// kernel.unprivileged_bpf_disabled is set. To be called by a thread without capabilities.
pub fn takes_capability() -> bool {
    sys::ask_of_nothing().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The effective ones of the calling thread.
#[derive(Clone, Copy)]
pub(super) struct Capabilities(u64);

impl Capabilities {
    pub(super) const NET_ADMIN: u32 = 12;
    pub(super) const NET_RAW: u32 = 13;
    pub(super) const SYS_ADMIN: u32 = 21;
    pub(super) const PERFMON: u32 = 38;
    pub(super) const BPF: u32 = 39;

    pub(super) fn own() -> Self {
        Self::of(&fs::read_to_string("/proc/thread-self/status").unwrap_or_default())
    }

    pub(super) fn of(status: &str) -> Self {
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Self(
            mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
                .unwrap_or(0),
        )
    }

    pub(super) fn has(self, capability: u32) -> bool {
        self.0 >> capability & 1 == 1
    }
}
