//! How a proxy with a session of an agent gives its pod to the next one. What it may not write the agent writes, and puts back.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::ensure;

use super::{done, say};
use crate::datapath::WriteRight;
use crate::grant::Request;
use crate::lifecycle::messages::{Listener, Messages};

/// Cheap to clone.
#[derive(Clone)]
pub(in super::super) struct GrantedHandover(Arc<Shared>);

pub(super) struct Shared {
    pub(super) right: WriteRight,
    pub(super) generation: usize,
    /// The pod is this process's for as long as this is open, whatever becomes of the agent.
    pub(super) lease: Mutex<Option<OwnedFd>>,
    pub(super) listener: Mutex<Option<Listener>>,
    /// Until the session is in force, and no proxy before it has the pod.
    pub(super) agent: Mutex<Option<Messages>>,
}

impl GrantedHandover {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    pub(in super::super) fn listener(&self) -> Option<Listener> {
        lock(&self.0.listener).take()
    }

    pub(in super::super) fn lease(&self) -> Option<io::Result<OwnedFd>> {
        lock(&self.0.lease).as_ref().map(OwnedFd::try_clone)
    }

    pub(in super::super) fn generation(&self) -> usize {
        self.0.generation
    }

    pub(in super::super) fn lay_down(&self) {
        self.0.right.lay_down();
    }

    pub(in super::super) fn leave(&self) {
        self.0.right.give();
        lock(&self.0.lease).take();
    }

    /// The agent closes its end of the conversation, by which the end of the other proxy is known, once it has put back what
    /// it has changed for that one. Fails where the agent has ended in between as well.
    pub(in super::super) fn restore(&self) -> anyhow::Result<()> {
        ensure!(
            self.0.right.take_back(),
            "the agent of this node has ended before it has put back what it had changed for the other one"
        );
        Ok(())
    }

    /// For the agent, which would put back otherwise what the proxy before had when this one ends.
    pub(in super::super) fn taken(&self) {
        let Some(agent) = lock(&self.0.agent).take() else {
            return;
        };
        if let Err(error) = say(&agent, &Request::Taken, &[]).and_then(done) {
            tracing::warn!(
                error = format!("{error:#}"),
                "the agent of this node does not know that this proxy has taken the pod over"
            );
        }
    }
}

pub(super) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
