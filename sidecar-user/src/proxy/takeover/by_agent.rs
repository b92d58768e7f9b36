//! How a proxy with a session of an agent gives its pod to the next one. What it may not write the agent writes, and puts back.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, ensure};

use super::super::agent::{done, say};
use crate::datapath::WriteRight;
use crate::grant::{Answer, Request};
use crate::lifecycle::messages::{Listener, Messages};

/// Cheap to clone.
#[derive(Clone)]
pub(in super::super) struct GrantedHandover(Arc<Shared>);

/// What it is made of.
pub(in super::super) struct Parts {
    pub(in super::super) right: WriteRight,
    pub(in super::super) generation: usize,
    pub(in super::super) lease: OwnedFd,
    pub(in super::super) listener: Listener,
    pub(in super::super) agent: Messages,
}

struct Shared {
    right: WriteRight,
    generation: usize,
    /// The pod is this process's for as long as this is open, whatever becomes of the agent.
    lease: Mutex<Option<OwnedFd>>,
    listener: Mutex<Option<Listener>>,
    /// Until the session is in force, and no proxy before it has the pod.
    agent: Mutex<Option<Messages>>,
}

impl GrantedHandover {
    pub(in super::super) fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            right: parts.right,
            generation: parts.generation,
            lease: Mutex::new(Some(parts.lease)),
            listener: Mutex::new(Some(parts.listener)),
            agent: Mutex::new(Some(parts.agent)),
        }))
    }

    pub(in super::super) fn say(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> anyhow::Result<(Answer, Vec<OwnedFd>)> {
        let agent = lock(&self.0.agent);
        let agent = agent.as_ref().context("the agent is asked no more")?;
        say(agent, request, descriptors)
    }

    /// Nothing more is asked of the agent.
    pub(in super::super) fn leave_agent(&self) {
        lock(&self.0.agent).take();
    }

    pub(super) fn listener(&self) -> Option<Listener> {
        lock(&self.0.listener).take()
    }

    pub(super) fn lease(&self) -> Option<io::Result<OwnedFd>> {
        lock(&self.0.lease).as_ref().map(OwnedFd::try_clone)
    }

    pub(super) fn generation(&self) -> usize {
        self.0.generation
    }

    pub(super) fn lay_down(&self) {
        self.0.right.lay_down();
    }

    pub(super) fn leave(&self) {
        self.0.right.give();
        lock(&self.0.lease).take();
    }

    /// The agent closes its end of the conversation, by which the end of the other proxy is known, once it has put back what
    /// it has changed for that one. Fails where the agent has ended in between as well.
    pub(super) fn restore(&self) -> anyhow::Result<()> {
        ensure!(
            self.0.right.take_back(),
            "the agent of this node has ended before it has put back what it had changed for the other one"
        );
        Ok(())
    }

    /// For the agent, which would put back otherwise what the proxy before had when this one ends.
    pub(super) fn taken(&self) {
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

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
