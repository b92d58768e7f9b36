//! What the kernel lets this process do (capabilities(7)).

use std::fs;
use std::io;

use super::sys;

/// Whether bpf(2) asks for CAP_BPF also for maps of which a process has a descriptor: before Linux 5.19 it does where
/// kernel.unprivileged_bpf_disabled is set. To be called by a thread without capabilities.
pub fn takes_capability() -> bool {
    sys::ask_of_nothing().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Whether the calling thread has not all that loading and attaching take.
pub(super) fn are_lacking() -> bool {
    !Capabilities::own().lacking().is_empty()
}

/// What to say of a refusal by bpf(2): which capabilities the calling thread lacks, or that it is none.
pub(super) fn hint() -> String {
    match Capabilities::own().lacking()[..] {
        [] => "; the process has the capabilities for it, so something else forbids bpf(2): its seccomp profile, a security module, or \
               kernel lockdown"
            .into(),
        ref lacking => format!(
            "; the process lacks {}; grant that, or run it as root with all capabilities (`outrigger check` says what it has)",
            lacking.join(", ")
        ),
    }
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

    /// Those that loading and attaching take, and that are not there. CAP_SYS_ADMIN includes the first two.
    pub(super) fn lacking(self) -> Vec<&'static str> {
        let any = self.has(Self::SYS_ADMIN);
        let all = [
            ("CAP_BPF", any || self.has(Self::BPF)),
            // The verifier is stricter without it, and refuses half of the programs.
            ("CAP_PERFMON", any || self.has(Self::PERFMON)),
            ("CAP_NET_ADMIN", self.has(Self::NET_ADMIN)),
        ];
        let lacking = all.into_iter().filter(|(_, there)| !there);
        lacking.map(|(name, _)| name).collect()
    }
}
