//! EXISTING CONNECTIONS: those that were there before the programs: they go on in plaintext past the proxy, or are ended by choice. Counted
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    pub kept: usize,
    pub destroyed: usize,
    /// Why some were not ended that should have been, or why nobody knows how many there were.
    pub failed: Option<String>,
}

/// Whose connections are nobody's to end.
#[derive(Clone, Copy, Debug)]
pub enum Own<'a> {
    /// This process is the proxy.
    Process,
    /// The proxy is in this cgroup of the pod's.
    Cgroup(&'a Path),
}

const IPPROTO_TCP: u32 = 6;

/// To be called right after attaching, before the proxy accepts or opens anything. Where the programs were attached before,
/// it is none of ours what was before that.
pub fn settle(kernel: &Session, is_first: bool, own: Own<'_>, existing: Existing) -> Settled {
    if !is_first {
        return Settled::default();
    }
    let settled = kernel.pod().netns().within(|| settle_here(kernel, own, existing));
    settled.unwrap_or_else(|error| unknown(&error))
}

/// For a thread in the pod's network namespace.
fn settle_here(kernel: &Session, own: Own<'_>, existing: Existing) -> Settled {
    let mut settled = Settled::default();
    let connections = match host::connections() {
        Ok(connections) => connections,
        Err(error) => return unknown(&error),
    };
    let (explain, mut cgroups) = (kernel.explain(), cgroups(kernel.pod().cgroup_path()));
    let own = match own {
        Own::Process => own_sockets(),
        Own::Cgroup(path) => {
            let of_proxy = self::cgroups(path);
            cgroups.retain(|id| !of_proxy.contains(id));
            HashSet::new()
        }
    };
    let is_meant = |one: &&Connection| {
        // 0: in the queue of a listener, perhaps of ours.
        let others = one.inode != 0 && !own.contains(&one.inode);
        others && one.cgroup.is_some_and(|id| cgroups.contains(&id)) && is_taken(&explain, one)
    };
    for one in connections.iter().filter(is_meant) {
        match (existing, &settled.failed) {
            (Existing::Destroy, None) => match host::destroy(one) {
                Ok(()) => settled.destroyed += 1,
                // The next one would fail the same way.
                Err(error) => {
                    settled.failed = Some(error_chain(&error));
                    settled.kept += 1;
                }
            },
            _ => settled.kept += 1,
        }
    }
    settled
}

impl Settled {
    /// For whoever looks after the pod.
    pub fn tell(&self) {
        let Self {
            kept,
            destroyed,
            failed,
        } = self;
        match failed {
            Some(error) if *kept == 0 => {
                tracing::warn!(error, "nobody knows which connections there were before");
            }
            Some(error) => tracing::warn!(
                kept,
                error,
                "connections from before go on past the proxy: they cannot be ended; grant CAP_NET_ADMIN, or use a kernel \
                 with CONFIG_INET_DIAG_DESTROY"
            ),
            None if *kept > 0 => tracing::warn!(
                kept,
                "connections from before go on past the proxy, in plaintext; interception.existing: destroy ends them"
            ),
            None if *destroyed > 0 => tracing::info!(
                destroyed,
                "connections from before were ended, so that they are opened again by way of the proxy"
            ),
            None => {}
        }
    }
}

fn unknown(error: &dyn std::error::Error) -> Settled {
    Settled {
        failed: Some(error_chain(error)),
        ..Settled::default()
    }
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
