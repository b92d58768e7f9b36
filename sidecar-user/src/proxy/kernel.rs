//! The kernel side of a proxy: programs that it has installed itself, or a session that the agent of its node has granted.
//! Which of the two it is nobody else asks.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;

use super::granted::Granted;
use super::takeover::Handover;
use crate::datapath::{
    Datapath, Ending, Error, Generation, Hold, Logs, NeighbourQuery, PodTarget, Session, Steered,
};
use crate::existing::{self, Existing, Own, Settled};

pub(super) enum Kernel {
    Installed(Box<Datapath>),
    Granted(Box<Granted>),
}

impl Kernel {
    pub(super) fn session(&self) -> &Session {
        match self {
            Self::Installed(datapath) => datapath.session(),
            Self::Granted(granted) => granted.session(),
        }
    }

    pub(super) fn pod(&self) -> &PodTarget {
        self.session().pod()
    }

    /// Prepares a shard for holding SYNs.
    pub(super) fn hold(&self, shard: u32, listener: BorrowedFd<'_>) -> Result<Hold, Error> {
        match self {
            Self::Installed(datapath) => datapath.hold(shard, listener),
            Self::Granted(granted) => granted.session().hold(shard, listener),
        }
    }

    /// Fills the slots of a shard.
    pub(super) fn steer(&self, shard: u32, listeners: Steered<'_>) -> anyhow::Result<()> {
        match self {
            Self::Installed(datapath) => Ok(datapath.session().steer(shard, listeners)?),
            Self::Granted(granted) => granted.steer(shard, listeners),
        }
    }

    /// From here on connections are brought to the listeners.
    pub(super) fn activate(&self) -> anyhow::Result<()> {
        match self {
            Self::Installed(datapath) => Ok(datapath.activate()?),
            Self::Granted(granted) => granted.activate(),
        }
    }

    /// Whether connections of the pod pass programs of another version until then.
    pub(super) fn is_apart(&self) -> bool {
        match self {
            Self::Installed(datapath) => datapath.is_apart(),
            Self::Granted(_) => false,
        }
    }

    /// Whether this process has loaded the programs.
    pub(super) fn is_installed(&self) -> bool {
        matches!(self, Self::Installed(_))
    }

    /// What becomes of connections that were there before anything of the pod was intercepted.
    pub(super) fn settle(&self, existing: Existing) -> Settled {
        match self {
            Self::Installed(datapath) => {
                existing::settle(datapath.session(), datapath.is_first(), Own::Process, existing)
            }
            Self::Granted(granted) => granted.settle(existing),
        }
    }

    pub(super) fn generation(&mut self) -> Option<Generation> {
        match self {
            Self::Installed(datapath) => datapath.generation(),
            Self::Granted(granted) => granted.generation(),
        }
    }

    /// The handle that gives the pod to another proxy, or takes it back.
    pub(super) fn handover(&self) -> Handover {
        match self {
            Self::Installed(datapath) => Handover::Installed(datapath.handover()),
            Self::Granted(granted) => Handover::Granted(granted.handover()),
        }
    }

    /// By which the pod is left when it ends. `None`: it is the agent's.
    pub(super) fn ending(&self) -> Option<Result<Ending, Error>> {
        match self {
            Self::Installed(datapath) => Some(datapath.ending()),
            Self::Granted(_) => None,
        }
    }

    /// `None`: asking takes rights that this process has not.
    pub(super) fn neighbours(&self) -> Option<NeighbourQuery> {
        match self {
            Self::Installed(datapath) => Some(datapath.neighbours()),
            Self::Granted(_) => None,
        }
    }

    /// Where an agent asks about flows.
    pub(super) fn questions(&self) -> Option<UnixListener> {
        match self {
            Self::Installed(_) => None,
            Self::Granted(granted) => granted.questions(),
        }
    }

    pub(super) fn logs(&mut self) -> Option<Logs> {
        match self {
            Self::Installed(datapath) => datapath.logs(),
            Self::Granted(_) => None,
        }
    }
}
