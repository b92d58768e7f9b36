//! Programs of other owners beside ours: on the pod's cgroup, on those above it, and on the network namespace. Asks the kernel
//! in which order they run; moves nobody.
//!
//! A program before ours has already changed, or refused, what ours get to see. One after ours sees the address that ours
//! redirect to. Programs of the cgroups above run after those of the pod's own.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::super::sys::{self, Scope};
use super::super::{Error, PodTarget};
use super::links::{HOOKS, Hook, SK_LOOKUP};
use super::pins;

/// Asks who else is attached to a pod. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NeighbourQuery {
    pod: PodTarget,
    pins: PathBuf,
}

impl NeighbourQuery {
    pub fn new(pod: PodTarget, pins: PathBuf) -> Self {
        Self { pod, pins }
    }

    /// Where the programs of the pod are pinned.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// At how many hooks ours are looked for.
    pub fn hooks(&self) -> usize {
        HOOKS.len()
    }

    /// Whose programs run beside those that are pinned. Takes CAP_NET_ADMIN, and CAP_BPF.
    pub fn ask(&self) -> Result<Neighbours, Error> {
        neighbours(&self.pod, Some(&self.pins))
    }
}

/// What runs at the hooks of this proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    pub foreign: Vec<Foreign>,
    /// Hooks at which no program of ours is attached, though it was looked for.
    pub missing: Vec<&'static str>,
}

/// A program of somebody else's at one of our hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// As bpftool says it, without the `cgroup_` in front: `connect4`, `sock_ops`.
    pub hook: &'static str,
    pub id: u32,
    /// Empty where the kernel does not tell: that takes CAP_SYS_ADMIN.
    pub name: String,
    pub order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Before,
    After,
    /// Nothing of ours is there.
    Alone,
}

/// What is attached to the pod's cgroup, and to its network namespace. Ours are known by their pins, or
/// without those by their names.
pub(super) fn neighbours(pod: &PodTarget, pins: Option<&Path>) -> Result<Neighbours, Error> {
    let mut found = Neighbours::default();
    for hook in HOOKS {
        let scope = match hook.attach_type == SK_LOOKUP {
            true => Scope::Target,
            false => Scope::Effective,
        };
        let attached = sys::attached(pod.fd(hook), hook.attach_type, scope)
            .map_err(Error::path("programs attached to", pod.path(hook)))?;
        let pinned = pins.and_then(|pins| pinned(pins, hook));
        let is_ours = |id: u32| pinned == Some(id) || name(id) == hook.program;
        let ids = &attached.programs;
        let ours: Vec<bool> = ids.iter().map(|id| is_ours(*id)).collect();
        // Another proxy may be attached above: the first one decides.
        let first = ours.iter().position(|ours| *ours);
        if first.is_none() {
            found.missing.push(short(hook));
        }
        for (n, id) in ids.iter().enumerate().filter(|(n, _)| !ours[*n]) {
            found.foreign.push(Foreign {
                hook: short(hook),
                id: *id,
                name: name(*id),
                order: match first {
                    Some(first) if n < first => Order::Before,
                    Some(_) => Order::After,
                    None => Order::Alone,
                },
            });
        }
    }
    Ok(found)
}

impl Order {
    /// As labels and messages have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Alone => "alone",
        }
    }
}

/// Empty where nobody tells.
fn name(id: u32) -> String {
    sys::program_name(id).unwrap_or_default()
}

fn pinned(pins: &Path, hook: Hook) -> Option<u32> {
    let link = sys::open_pin(&pins::link(pins, hook.program)).ok()?;
    Some(sys::link_info(link.as_fd()).ok()?.program)
}

fn short(hook: Hook) -> &'static str {
    hook.program.trim_start_matches("or_")
}
