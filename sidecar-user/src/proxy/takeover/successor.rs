//! The new proxy's side: it asks, prepares everything with what it was given, and takes the pod over in one step.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use serde_json::json;
use tokio::sync::watch;

use super::wire::{
    ANSWER, ASK, DONE, GRANTED, LAY_DOWN, REFUSED, TAKEN, Takeover, handed, name, named, pause, said, word,
};
use crate::datapath::{self, Lease};
use crate::identity::Svid;
use crate::lifecycle::messages::Messages;
use crate::model::SpiffeId;

/// Between two tries where an owner is about to be gone.
const AGAIN: Duration = Duration::from_millis(20);

/// The owner that is to be replaced.
pub(in super::super) struct Former {
    conversation: Messages,
    pid: u32,
    descriptors: Vec<(String, OwnedFd)>,
    takeovers: u64,
    generation: usize,
}

/// How asking ended.
pub(in super::super) enum Asked {
    /// With the lease, which is to be looked at.
    Granted(OwnedFd, Former),
    /// There is nobody, any more or yet.
    Nobody(anyhow::Error),
}

/// The lease of the pod's directory, from its owner where there is one.
pub(in super::super) fn own(
    pins: &Path,
    takeover: Takeover,
    identity: &SpiffeId,
) -> anyhow::Result<(Lease, Option<Former>)> {
    let begun = Instant::now();
    loop {
        let owned = match Lease::take(pins) {
            Ok(lease) => return Ok((lease, None)),
            Err(owned @ datapath::Error::Owned { .. }) if takeover == Takeover::Allow => owned,
            Err(error) => return Err(error.into()),
        };
        match ask_at(pins, identity).with_context(|| owned.to_string())? {
            Asked::Granted(lease, former) => return Ok((Lease::received(lease, pins)?, Some(former))),
            Asked::Nobody(why) if begun.elapsed() > ANSWER => return Err(why.context(owned)),
            Asked::Nobody(_) => pause(AGAIN),
        }
    }
}

fn ask_at(pins: &Path, identity: &SpiffeId) -> anyhow::Result<Asked> {
    let Ok(conversation) = name(pins).and_then(|name| Messages::connect(&name)) else {
        return Ok(nobody("nobody listens for that in this network namespace"));
    };
    let peer = conversation.peer()?;
    if !peer.is_trusted() {
        bail!("a program of user {} listens in its place", peer.uid);
    }
    let directory = File::open(pins).with_context(|| pins.display().to_string())?;
    ask(conversation, &[directory.as_fd()], identity)
}

fn nobody(what: &str) -> Asked {
    Asked::Nobody(anyhow!("it cannot be asked to hand the pod over: {what}"))
}

/// Asks the owner at the other end, with what shows that this process may have the pod.
pub(in super::super) fn ask(
    conversation: Messages,
    proof: &[BorrowedFd<'_>],
    identity: &SpiffeId,
) -> anyhow::Result<Asked> {
    let asking = json!({
        "say": ASK,
        "takeover": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "identity": identity,
        "pid": std::process::id(),
    });
    if conversation.send(asking.to_string().as_bytes(), proof).is_err() {
        return Ok(nobody("it has ended"));
    }
    let answer = match conversation.receive(Some(ANSWER)) {
        Ok(Some(answer)) => answer,
        Ok(None) => return Ok(nobody("it has ended")),
        Err(error) => bail!("it does not answer a proxy that wants to take over: {error}"),
    };
    let (say, value) = said(&answer);
    match say.as_str() {
        GRANTED => {}
        REFUSED => bail!(
            "it refuses to hand the pod over: {}",
            value["why"].as_str().unwrap_or("it says no more")
        ),
        _ => bail!("it answers what this version does not understand"),
    }
    let mut descriptors = named(&value, answer.descriptors);
    let lease = descriptors.iter().position(|(name, _)| name == handed::LEASE);
    let (_, lease) = descriptors.remove(lease.context("it hands over no lease")?);
    // Where the agent has connected, the kernel tells of the agent.
    let said = value["pid"].as_u64().and_then(|pid| pid.try_into().ok());
    let pid = said.map_or_else(|| Ok(conversation.peer()?.pid), anyhow::Ok)?;
    tracing::info!(
        owner = pid,
        "a proxy serves this pod, and will be replaced once this one is ready"
    );
    Ok(Asked::Granted(
        lease,
        Former {
            conversation,
            pid,
            descriptors,
            takeovers: value["takeovers"].as_u64().unwrap_or_default() + 1,
            generation: value["generation"]
                .as_u64()
                .and_then(|n| n.try_into().ok())
                .unwrap_or_default(),
        },
    ))
}

impl Former {
    pub(in super::super) fn pid(&self) -> u32 {
        self.pid
    }

    /// How often the pod has been taken over, this time included.
    pub(in super::super) fn takeovers(&self) -> u64 {
        self.takeovers
    }

    /// Which of the slots it has.
    pub(in super::super) fn generation(&self) -> usize {
        self.generation
    }

    /// The listener of that name, where it listens at this address.
    pub(in super::super) fn tcp(&mut self, name: &str, at: SocketAddr) -> Option<TcpListener> {
        let listener = TcpListener::from(self.take(name)?);
        listener
            .local_addr()
            .is_ok_and(|there| there == at)
            .then_some(listener)
    }

    pub(in super::super) fn unix(&mut self, name: &str, at: &Path) -> Option<UnixListener> {
        let listener = UnixListener::from(self.take(name)?);
        let is_there = |there: std::os::unix::net::SocketAddr| there.as_pathname() == Some(at);
        listener.local_addr().is_ok_and(is_there).then_some(listener)
    }

    fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let found = self.descriptors.iter().position(|(of, _)| of == name)?;
        Some(self.descriptors.remove(found).1)
    }

    /// Waits until this proxy has a certificate to serve with: until then its predecessor serves. Or until that has ended:
    /// then nobody does.
    pub(in super::super) async fn until_ready(&self, mut svid: watch::Receiver<Option<Arc<Svid>>>) {
        let has_ended = async {
            if let Err(error) = self.conversation.over().await {
                tracing::warn!(%error, "the end of the proxy before would not be noticed");
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = svid.wait_for(Option::is_some) => {}
            () = has_ended => {}
        }
    }

    /// From here on the owner writes nothing, or has ended.
    pub(in super::super) fn lay_down(&self) -> anyhow::Result<()> {
        if self.conversation.send(&word(LAY_DOWN), &[]).is_err() {
            return Ok(());
        }
        match self.conversation.receive(Some(ANSWER)) {
            Ok(Some(answer)) if said(&answer).0 == DONE => Ok(()),
            Ok(None) => Ok(()),
            Ok(Some(_)) => bail!("process {} does not lay its work down", self.pid),
            Err(error) => {
                Err(error).with_context(|| format!("process {} does not answer any more", self.pid))
            }
        }
    }

    /// The pod is this proxy's.
    pub(in super::super) fn taken(&mut self) {
        // It may have ended meanwhile.
        let _ = self.conversation.send(&word(TAKEN), &[]);
        self.descriptors.clear();
    }

    /// Completes when the owner before has ended.
    pub(in super::super) async fn end(self) {
        // Where that cannot be waited for, whoever looks next finds out.
        let _ = self.conversation.over().await;
    }
}
