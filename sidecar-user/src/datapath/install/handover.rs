//! Giving a pod to another proxy. One of the two writes at a time: the old one until it has laid down the pen, then the new
//! one, and the old one again only if the new one ends before it is done.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::Error;
use super::installed::Installed;

/// Cheap to clone.
#[derive(Clone)]
pub struct Handover(Arc<Installed>);

impl Handover {
    pub(super) fn new(installed: Arc<Installed>) -> Self {
        Self(installed)
    }

    /// The lease, to be shared until one of the two has the pod for itself. `None`: it is somebody else's already.
    pub fn lease(&self) -> Option<io::Result<OwnedFd>> {
        self.0.lease().as_ref().map(|lease| lease.descriptor())
    }

    /// Whether somebody holds a descriptor of the pins directory, which takes the right to open it.
    pub fn is_of_pins(&self, directory: &OwnedFd) -> bool {
        self.0
            .lease()
            .as_ref()
            .is_some_and(|lease| lease.is_of(directory))
    }

    /// Writes nothing any more, so that another proxy may.
    pub fn lay_down(&self) {
        self.0.switches.lay_down();
    }

    /// Gives the lease up: the other proxy has it, and has attached.
    pub fn leave(&self) {
        self.0.switches.give();
        self.0.lease().take();
    }

    /// The other proxy has ended before it was done: puts everything back as it was.
    pub fn restore(&self) -> Result<(), Error> {
        self.0.restore()
    }

    /// Which of the slots this proxy has.
    pub fn generation(&self) -> usize {
        self.0.generation
    }

    /// Detaches what proxies before this one needed for themselves that wait for nobody any more. False: some do.
    pub fn forget_formers(&self) -> Result<bool, Error> {
        self.0.forget_formers()
    }
}
