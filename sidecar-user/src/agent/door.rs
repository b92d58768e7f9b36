//! The door of one pod: an abstract Unix socket in the pod's network namespace, where its sidecar asks for a session. No volume
//! and no token is needed for that, and the door itself says which pod it is.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::caller;
use super::session::Offered;
use crate::datapath::{self, Config, Node, PodTarget, Policy, close_on};
use crate::grant::{self, Answer, Request};
use crate::lifecycle::messages::{Listener, Message, Messages};

/// How long a conversation may be silent before it has come to its end, at which the sidecar serves.
const SILENCE: Duration = Duration::from_secs(30);

/// A pod that is installed.
pub(super) struct Pod {
    pub(super) node: Arc<Node>,
    pub(super) target: PodTarget,
    pub(super) pins: PathBuf,
    pub(super) name: String,
    /// The cgroup of its sidecar.
    pub(super) sidecar: PathBuf,
}

impl Pod {
    /// Attaches the programs. Connections are refused until a sidecar has its session; one that has it goes on.
    pub(super) fn close(&self) -> Result<(), datapath::Error> {
        if !close_on(&self.node, &self.closed(), self.target.clone())? {
            tracing::warn!(
                pod = self.name,
                "the programs of another version stay until its sidecar is restarted"
            );
        }
        tracing::info!(pod = self.name, cgroup = %self.target.cgroup_path().display(), "a pod is installed");
        Ok(())
    }

    fn closed(&self) -> Config {
        Config {
            cgroup: self.target.cgroup_path().into(),
            netns: None,
            pins: self.pins.clone(),
            hbone_port: 15008,
            shards: 0,
            open_ports: Vec::new(),
            pod_addresses: Vec::new(),
            strict: false,
            allow_whole_host: false,
            policy: Policy::default(),
        }
    }

    /// As a sidecar wants it.
    pub(super) fn config(&self, ask: &grant::Ask) -> Config {
        Config {
            hbone_port: ask.hbone_port,
            shards: ask.shards,
            open_ports: ask.open_ports.clone(),
            pod_addresses: ask.addresses.clone(),
            strict: ask.strict,
            ..self.closed()
        }
    }
}

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
            return refuse(conversation, stranger.to_string());
        }
    };
    let mut offered: Option<Offered> = None;
    while let Ok(Some(message)) = conversation.receive(Some(SILENCE)) {
        match step(pod, &mut offered, message) {
            Ok((answer, descriptors)) => {
                let over = answer == Answer::Done && offered.as_ref().is_some_and(Offered::is_active);
                let borrowed: Vec<_> = descriptors.iter().map(std::os::fd::AsFd::as_fd).collect();
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
                return refuse(conversation, format!("{error:#}"));
            }
        }
    }
    match offered.filter(Offered::is_active) {
        Some(_) => tracing::info!(pod = pod.name, pid, "a sidecar serves a pod"),
        None => tracing::warn!(
            pod = pod.name,
            pid,
            "a sidecar has asked for a session and not taken it"
        ),
    }
}

type Answered = (Answer, Vec<std::os::fd::OwnedFd>);

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
