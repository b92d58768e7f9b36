//! The door of one pod: an abstract Unix socket in the pod's network namespace, where its sidecar asks for a session. No volume
//! and no token is needed for that, and the door itself says which pod it is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, bail};

use super::caller::{self, Caller, Stranger};
use super::pod::Pod;
use super::session::{Ended, Grant, Offered, Whose, whose};
use crate::budget;
use crate::datapath::Handover;
use crate::error_chain;
use crate::existing::Settled;
use crate::grant::{self, Answer, Request};
use crate::lifecycle::messages::{Listener, Message, Messages};

/// How long a conversation may be silent. A sidecar that takes over from another one may take as long as it needs to get a
/// certificate.
const SILENCE: Duration = Duration::from_secs(30);

/// How long somebody who has to wait may take to say what is wanted.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// How often a look is taken whether sidecars before still wait for connections.
const FORMERS_LOOK: Duration = Duration::from_secs(1);

/// Answers until dropped.
pub(super) async fn serve(pod: Arc<Pod>) -> io::Result<()> {
    let bound = pod.target.netns().within(|| Listener::bind(grant::DOOR));
    let listener = bound.map_err(io::Error::other)?.map_err(|error| {
        let why = format!("its door @{}, which another agent may have: {error}", grant::DOOR);
        io::Error::new(error.kind(), why)
    })?;
    loop {
        let conversation = listener.next().await?;
        let pod = pod.clone();
        // It blocks: a program is loaded for each session.
        tokio::task::spawn_blocking(move || answer(&pod, &conversation));
    }
}

fn answer(pod: &Pod, conversation: &Messages) {
    // Before the first word, while whoever has connected is still there.
    let caller = match caller::sidecar(conversation, &pod.sidecar) {
        Ok(caller) => caller,
        Err(Stranger::Early(why)) => {
            // What is left unread when a conversation ends takes the answer with it.
            let _ = conversation.receive(Some(FIRST_WORD));
            return say(conversation, &Answer::Wait { why: why.into() });
        }
        Err(stranger) => {
            tracing::warn!(pod = pod.name, "{stranger}");
            pod.register.stranger(&pod.name);
            return refuse(conversation, stranger.to_string());
        }
    };
    let Caller { pid, cgroup } = caller;
    let mut asked = Asked {
        pod,
        pid,
        cgroup,
        offered: None,
        serving: None,
    };
    if let Err(error) = asked.converse(conversation) {
        let error = format!("{error:#}");
        tracing::warn!(pod = pod.name, pid, error, "a sidecar is refused");
        pod.register.counts.refused.fetch_add(1, Relaxed);
        refuse(conversation, error);
    }
    asked.end();
    // Of the object that was loaded for it.
    budget::trim();
}

/// A conversation with a sidecar.
struct Asked<'p> {
    pod: &'p Pod,
    pid: u32,
    /// Where the sidecar runs.
    cgroup: PathBuf,
    offered: Option<Offered>,
    /// The other end of what the sidecar was given to talk to the one before. That one takes this one for gone once both
    /// are closed: when nothing changes any more.
    serving: Option<Messages>,
}

type Answered = (Answer, Vec<OwnedFd>);

impl Asked<'_> {
    /// Until the sidecar has all that it needs, or has ended.
    fn converse(&mut self, conversation: &Messages) -> anyhow::Result<()> {
        loop {
            let limit = self.serving.is_none().then_some(SILENCE);
            let Ok(Some(message)) = conversation.receive(limit) else {
                return Ok(());
            };
            // An agent that has ended does not answer either.
            let Some(passed) = self.pod.gate.pass() else {
                return Ok(());
            };
            let (answer, descriptors) = self.step(message)?;
            drop(passed);
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            let text = serde_json::to_vec(&answer).expect("it is JSON");
            if conversation.send(&text, &borrowed).is_err() {
                return Ok(());
            }
        }
    }

    fn step(&mut self, message: Message) -> anyhow::Result<Answered> {
        let pod = self.pod;
        let request: Request = serde_json::from_slice(&message.text)?;
        match (request, self.offered.as_mut()) {
            (Request::Ask(ask), None) if self.serving.is_none() => match whose(pod)? {
                Whose::Nobodys(lease) => Ok(self.grant(Offered::first(pod, &ask, lease)?)),
                Whose::Serving(conversation) => {
                    let given = conversation.as_fd().try_clone_to_owned()?;
                    self.serving = Some(conversation);
                    Ok((Answer::Serving { owner: pod.owner() }, vec![given]))
                }
                Whose::Busy => Ok((Answer::Busy { why: pod.owner() }, Vec::new())),
            },
            (Request::Succeed { ask, generation }, None) if self.serving.is_some() => {
                let lease = message.descriptors.into_iter().next();
                Ok(self.grant(Offered::succeed(pod, &ask, lease, generation)?))
            }
            (Request::Steer { shard, listeners }, Some(offered)) => {
                offered.steer(shard, &listeners, &message.descriptors)?;
                Ok((Answer::Done, Vec::new()))
            }
            (Request::Activate, Some(offered)) if !offered.is_active() => {
                offered.activate(pod)?;
                if !offered.succeeds() {
                    self.serves();
                }
                Ok((Answer::Done, Vec::new()))
            }
            (Request::Settle { destroy }, Some(offered)) => {
                let Settled {
                    kept,
                    destroyed,
                    failed,
                } = offered.settle(&self.cgroup, destroy)?;
                let settled = Answer::Settled {
                    kept,
                    destroyed,
                    failed,
                };
                Ok((settled, Vec::new()))
            }
            (Request::Taken, Some(offered)) if offered.is_active() => {
                offered.taken();
                if let Some(formers) = offered.formers() {
                    tokio::spawn(forget(formers, pod.name.clone()));
                }
                self.serves();
                Ok((Answer::Done, Vec::new()))
            }
            (Request::Control, None) if self.serving.is_none() => {
                let share = pod.control.as_ref();
                let share = share.context("this agent knows of no control process; set its `control.url`")?;
                Ok((Answer::Done, vec![share.open()?.into()]))
            }
            _ => bail!("it says its words in another order"),
        }
    }

    fn grant(&mut self, (offered, (given, descriptors)): (Offered, Grant)) -> Answered {
        self.offered = Some(offered);
        (Answer::Granted(given), descriptors)
    }

    fn serves(&self) {
        self.pod.served_by.store(self.pid, Relaxed);
        self.pod.register.counts.granted.fetch_add(1, Relaxed);
        let (pod, pid) = (self.pod.name.as_str(), self.pid);
        tracing::info!(pod, pid, "a sidecar serves a pod");
        for one in self.offered.iter().flat_map(Offered::foreign) {
            let (program, hook, name, order) = (one.id, one.hook, one.name.as_str(), one.order.name());
            tracing::warn!(
                pod,
                program,
                name,
                hook,
                order,
                "a program of another owner runs beside the pod's"
            );
        }
    }

    /// The other end is gone, or is refused.
    fn end(self) {
        let (pod, pid) = (self.pod.name.as_str(), self.pid);
        let Some(offered) = self.offered else {
            return;
        };
        if !offered.is_active() {
            tracing::warn!(pod, pid, "a sidecar has asked for a session and not taken it");
        }
        match offered.end(self.pod) {
            Ended::Well => {}
            Ended::PutBack => tracing::warn!(
                pod,
                pid,
                "a sidecar has ended before it had taken the pod over; the one before goes on"
            ),
            Ended::Lost(error) => {
                tracing::error!(
                    pod,
                    pid,
                    error,
                    "what a sidecar has changed before it ended cannot be put back: the pod is closed until another one comes"
                );
                if let Some(before) = &self.serving {
                    // It may have ended as well.
                    let _ = before.send(grant::LOST, &[]);
                }
            }
        }
        // Only now the one before hears of it.
        drop(self.serving);
    }
}

/// Until the sidecar before has ended.
async fn forget(formers: Handover, pod: String) {
    loop {
        match formers.forget_formers() {
            Ok(true) => return,
            Ok(false) => tokio::time::sleep(FORMERS_LOOK).await,
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(
                    pod,
                    error,
                    "programs of a sidecar before stay attached beside the pod's"
                );
                return;
            }
        }
    }
}

fn refuse(conversation: &Messages, why: String) {
    say(conversation, &Answer::Refused { why });
}

fn say(conversation: &Messages, answer: &Answer) {
    let text = serde_json::to_vec(answer).expect("it is JSON");
    // Whoever does not wait for the answer needs none.
    let _ = conversation.send(&text, &[]);
}
