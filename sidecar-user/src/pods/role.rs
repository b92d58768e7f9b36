//! What a directory of the cgroup2 hierarchy is on the way to pods, by its name and what the one above it is. Pure.

use super::path::Segment;

/// Directories of the kubelet are sought this deep below a mount: `--cgroup-root` and a node that is itself a container take
/// two levels each, at most.
pub(super) const DEPTH: u8 = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Directories of the kubelet may be below. Itself so deep below the mount.
    Search(u8),
    /// A topmost `*kubepods*` directory.
    Kubepods,
    /// Of one QoS class.
    Class,
    /// On the way to a directory of pods made by hand, by these names.
    Toward(Vec<String>),
    /// Whatever is in it is a pod.
    Plain,
    /// Above a pod of this name that was asked for.
    Above(String),
    Pod,
}

impl Role {
    pub(super) fn toward(mut names: Vec<String>) -> Self {
        names.reverse();
        Self::from_reversed(names)
    }

    fn from_reversed(names: Vec<String>) -> Self {
        if names.is_empty() {
            Self::Plain
        } else {
            Self::Toward(names)
        }
    }

    /// What a directory of this name in it is. `None`: no pod can be there.
    pub(super) fn below(&self, name: &str) -> Option<Self> {
        match self {
            Self::Search(depth) => {
                let is_kubepods = name.contains("kubepods");
                match Segment::of(name) {
                    Segment::Pod { .. } | Segment::Joined { .. } => None,
                    _ if is_kubepods => Some(Self::Kubepods),
                    _ => (depth + 1 < DEPTH).then_some(Self::Search(depth + 1)),
                }
            }
            Self::Kubepods => match Segment::of(name) {
                Segment::Pod { .. } => Some(Self::Pod),
                Segment::Other => Some(Self::Class),
                Segment::Joined { .. } | Segment::Container(_) => None,
            },
            Self::Class => matches!(Segment::of(name), Segment::Pod { .. }).then_some(Self::Pod),
            Self::Toward(names) => {
                let (next, rest) = names.split_last()?;
                (next == name).then(|| Self::from_reversed(rest.to_vec()))
            }
            Self::Plain => Some(Self::Pod),
            Self::Above(pod) => (pod == name).then_some(Self::Pod),
            Self::Pod => None,
        }
    }
}
