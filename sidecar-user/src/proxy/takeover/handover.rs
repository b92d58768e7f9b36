//! What a proxy gives to the one after it, whoever has installed the programs: one of the two writes at a time, the old one
//! until it has laid down its right to, then the new one, and the old one again only if the new one ends before it is done.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::by_agent::GrantedHandover;
use super::wire::name;
use crate::datapath;
use crate::lifecycle::messages::Listener;

/// Cheap to clone.
#[derive(Clone)]
pub(in super::super) enum Handover {
    /// Of a proxy that has installed the programs itself.
    Installed(datapath::Handover),
    /// Of one that the agent of its node has given a session.
    Granted(GrantedHandover),
}

/// Where a proxy is asked to hand its pod over.
pub(super) enum Door {
    /// At a name of the network namespace, which any program of the pod can connect to. Whoever asks has to show that it may
    /// open the pins directory.
    Named(String),
    /// Where the agent of the node connects, and nobody else can. It has asked the kernel who wants to take over.
    Agents(Listener),
}

impl Handover {
    pub(super) fn door(&self, pins: &Path) -> io::Result<Door> {
        match self {
            Self::Installed(_) => name(pins).map(Door::Named),
            Self::Granted(granted) => {
                let listener = granted.listener();
                let listener = listener.ok_or_else(|| io::Error::other("it was asked for before"))?;
                Ok(Door::Agents(listener))
            }
        }
    }

    /// Whether the descriptors that somebody sends show that it may have the pod.
    pub(super) fn is_proof(&self, given: &[OwnedFd]) -> bool {
        match self {
            Self::Installed(handover) => given.iter().any(|fd| handover.is_of_pins(fd)),
            Self::Granted(_) => true,
        }
    }

    /// The lease, to be shared until one of the two has the pod for itself. `None`: it is somebody else's already.
    pub(super) fn lease(&self) -> Option<io::Result<OwnedFd>> {
        match self {
            Self::Installed(handover) => handover.lease(),
            Self::Granted(granted) => granted.lease(),
        }
    }

    /// Which of the slots this proxy has.
    pub(super) fn generation(&self) -> usize {
        match self {
            Self::Installed(handover) => handover.generation(),
            Self::Granted(granted) => granted.generation(),
        }
    }

    /// Writes nothing any more, so that another proxy may.
    pub(super) fn lay_down(&self) {
        match self {
            Self::Installed(handover) => handover.lay_down(),
            Self::Granted(granted) => granted.lay_down(),
        }
    }

    /// Gives the lease up: the other proxy has it, and has attached.
    pub(super) fn leave(&self) {
        match self {
            Self::Installed(handover) => handover.leave(),
            Self::Granted(granted) => granted.leave(),
        }
    }

    /// The other proxy has ended before it was done: everything is as it was. Of a proxy that an agent serves the agent has put
    /// it back.
    pub(super) fn restore(&self) -> anyhow::Result<()> {
        match self {
            Self::Installed(handover) => Ok(handover.restore()?),
            Self::Granted(granted) => granted.restore(),
        }
    }

    /// The proxy before has given the pod up.
    pub(super) fn taken(&self) {
        if let Self::Granted(granted) = self {
            granted.taken();
        }
    }

    /// Detaches what proxies before this one needed for themselves that wait for nobody any more. False: some do.
    pub(super) fn forget_formers(&self) -> Result<bool, datapath::Error> {
        match self {
            Self::Installed(handover) => handover.forget_formers(),
            // The agent does, with the next session.
            Self::Granted(_) => Ok(true),
        }
    }
}
