//! The door of one pod: an abstract Unix socket in the pod's network namespace, where its sidecar asks for a session. No volume
//! and no token is needed for that, and the door itself says which pod it is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::caller;
use super::pod::Pod;
use super::session::Offered;
use crate::budget;
use crate::grant::{self, Answer, Request};
use crate::lifecycle::messages::{Listener, Message, Messages};

/// How long a conversation may be silent before it has come to its end, at which the sidecar serves.
const SILENCE: Duration = Duration::from_secs(30);

/// Answers until dropped.
pub(super) async fn serve(pod: Arc<Pod>) -> io::Result<()> {
    let bound = pod.target.netns().within(|| Listener::bind(grant::DOOR));
    let listener = bound.map_err(io::Error::other)??;
    loop {
        let conversation = listener.next().await?;
        let pod = pod.clone();
        // It blocks: a program is loaded for each session.
        tokio::task::spawn_blocking(move || answer(&pod, &conversation));
    }
}

fn answer(pod: &Pod, conversation: &Messages) {
    // Before the first word, while whoever has connected is still there.
    let pid = match caller::sidecar(conversation, &pod.sidecar) {
        Ok(pid) => pid,
        Err(stranger) => {
            tracing::warn!(pod = pod.name, "{stranger}");
            pod.register.stranger(&pod.name);
            return refuse(conversation, stranger.to_string());
        }
    };
    let mut offered: Option<Offered> = None;
    while let Ok(Some(message)) = conversation.receive(Some(SILENCE)) {
        match step(pod, &mut offered, message) {
            Ok((answer, descriptors)) => {
                let over = answer == Answer::Done && offered.as_ref().is_some_and(Offered::is_active);
                if over {
                    pod.served_by.store(pid, Relaxed);
                    pod.register.counts.granted.fetch_add(1, Relaxed);
                }
                let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                let text = serde_json::to_vec(&answer).expect("it is JSON");
                if conversation.send(&text, &borrowed).is_err() || over {
                    break;
                }
            }
            Err(error) => {
                tracing::warn!(
                    pod = pod.name,
                    pid,
                    error = format!("{error:#}"),
                    "a sidecar is refused"
                );
                pod.register.counts.refused.fetch_add(1, Relaxed);
                return refuse(conversation, format!("{error:#}"));
            }
        }
    }
    let is_active = offered.as_ref().is_some_and(Offered::is_active);
    drop(offered);
    // Of the object that was loaded for it.
    budget::trim();
    match is_active {
        true => tracing::info!(pod = pod.name, pid, "a sidecar serves a pod"),
        false => tracing::warn!(
            pod = pod.name,
            pid,
            "a sidecar has asked for a session and not taken it"
        ),
    }
}

type Answered = (Answer, Vec<OwnedFd>);

fn step(pod: &Pod, offered: &mut Option<Offered>, message: Message) -> anyhow::Result<Answered> {
    let request: Request = serde_json::from_slice(&message.text)?;
    match (request, offered.as_mut()) {
        (Request::Ask(ask), None) => {
            let (made, given, descriptors) = Offered::new(pod, &ask)?;
            *offered = Some(made);
            Ok((Answer::Granted(given), descriptors))
        }
        (Request::Steer { shard, listeners }, Some(offered)) => {
            offered.steer(shard, &listeners, &message.descriptors)?;
            Ok((Answer::Done, Vec::new()))
        }
        (Request::Activate, Some(offered)) => {
            offered.activate()?;
            Ok((Answer::Done, Vec::new()))
        }
        _ => anyhow::bail!("it says its words in another order"),
    }
}

fn refuse(conversation: &Messages, why: String) {
    let text = serde_json::to_vec(&Answer::Refused { why }).expect("it is JSON");
    // Whoever does not wait for the answer needs none.
    let _ = conversation.send(&text, &[]);
}
