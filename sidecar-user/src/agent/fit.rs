//! Whether this process may do to pods what an agent does. The kernel is asked once, at the start, so that whoever runs the agent is
//! told which capability is missing before the first pod is. What loading takes the loading says.

use std::fs::File;
use std::io;

use crate::datapath::Netns;

#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error(
        "the agent may not enter network namespaces, where it makes the sockets of pods: {why}; grant CAP_SYS_ADMIN (in a container \
         also a seccomp profile that lets it call setns(2))"
    )]
    Enter { why: io::Error },
    #[error(
        "the agent may not look at the processes of pods, by which it knows their network namespaces: {why}; grant CAP_SYS_PTRACE \
         (in a container also an AppArmor profile that lets it, such as unconfined)"
    )]
    Look { why: io::Error },
}

pub(super) fn check() -> Result<(), Unfit> {
    Netns::may_enter_others().map_err(|why| Unfit::Enter { why })?;
    // The host's first process and the kernel's own have every capability: whoever may look at one of them may look at a pod's.
    match [1, 2].map(|pid| File::open(format!("/proc/{pid}/ns/net"))) {
        [Err(why), Err(other)] if is_refused(&why) && is_refused(&other) => Err(Unfit::Look { why }),
        _ => Ok(()),
    }
}

fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
