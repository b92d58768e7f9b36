//! Connections that were there before the programs: they go on in plaintext past the proxy, or are ended by choice. Counted
//! in either case. Touches none outside of the pod's cgroup and network namespace, none of the proxy's own, and none that the
//! programs would leave alone.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::datapath::{Action, Explain, Session};
use crate::error_chain;
use crate::host::{self, Connection};

/// What becomes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    #[default]
    Keep,
    Destroy,
}

/// How many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    pub kept: usize,
    pub destroyed: usize,
}

const IPPROTO_TCP: u32 = 6;

/// To be called right after attaching, before the proxy accepts or opens anything. Where the programs were attached before,
/// it is none of ours what was before that.
pub fn settle(kernel: &Session, is_first: bool, existing: Existing) -> Settled {
    if !is_first {
        return Settled::default();
    }
    let settled = kernel.pod().netns().within(|| settle_here(kernel, existing));
    settled.unwrap_or_else(|error| {
        unknown(&error);
        Settled::default()
    })
}

/// For a thread in the pod's network namespace.
fn settle_here(kernel: &Session, existing: Existing) -> Settled {
    let mut settled = Settled::default();
    let connections = match host::connections() {
        Ok(connections) => connections,
        Err(error) => {
            unknown(&error);
            return settled;
        }
    };
    let (explain, cgroups, own) = (
        kernel.explain(),
        cgroups(kernel.pod().cgroup_path()),
        own_sockets(),
    );
    let is_meant = |one: &&Connection| {
        // 0: in the queue of a listener, perhaps of ours.
        let others = one.inode != 0 && !own.contains(&one.inode);
        others && one.cgroup.is_some_and(|id| cgroups.contains(&id)) && is_taken(&explain, one)
    };
    let mut failed = None;
    for one in connections.iter().filter(is_meant) {
        match (existing, &failed) {
            (Existing::Destroy, None) => match host::destroy(one) {
                Ok(()) => settled.destroyed += 1,
                // The next one would fail the same way.
                Err(error) => {
                    failed = Some(error);
                    settled.kept += 1;
                }
            },
            _ => settled.kept += 1,
        }
    }
    let Settled { kept, destroyed } = settled;
    if let Some(error) = failed {
        tracing::warn!(
            kept,
            error = error_chain(&error),
            "connections from before go on past the proxy: they cannot be ended; grant CAP_NET_ADMIN, or use a kernel with \
             CONFIG_INET_DIAG_DESTROY"
        );
    } else if kept > 0 {
        tracing::warn!(
            kept,
            "connections from before go on past the proxy, in plaintext; interception.existing: destroy ends them"
        );
    } else if destroyed > 0 {
        tracing::info!(
            destroyed,
            "connections from before were ended, so that they are opened again by way of the proxy"
        );
    }
    settled
}

fn unknown(error: &dyn std::error::Error) {
    tracing::warn!(
        error = error_chain(error),
        "nobody knows which connections there were before"
    );
}

/// Whether the programs would take it, as the pod's own or as one from outside: which of the two it is nobody has kept.
fn is_taken(explain: &Explain, one: &Connection) -> bool {
    let outbound = explain.outbound(IPPROTO_TCP, one.remote);
    let inbound = explain.inbound(IPPROTO_TCP, one.remote.ip(), one.local);
    [outbound, inbound].iter().all(|verdict| {
        verdict
            .as_ref()
            .is_ok_and(|verdict| verdict.action != Action::Leave)
    })
}

/// The numbers of the cgroup and of all below.
fn cgroups(path: &Path) -> HashSet<u64> {
    let mut found = HashSet::new();
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        // One that is gone has no sockets that anybody could name.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        found.insert(metadata.ino());
        let below = fs::read_dir(&path).into_iter().flatten().filter_map(Result::ok);
        waiting.extend(
            below
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    found
}

/// Sockets of this process, by their inodes.
fn own_sockets() -> HashSet<u32> {
    let open = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    open.filter_map(|entry| {
        let link = fs::read_link(entry.path()).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse().ok()
    })
    .collect()
}
