//! What the agent of a node of Kubernetes hears of its pods, and what follows from it: `meshed.rs` decides, and this file asks the
//! API server. While that is away, pods that are known go on, and new ones wait.

use std::collections::{BTreeSet, HashMap};
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{Stream, StreamExt};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::caller::Known;
use super::meshed::{Effect, Meshed, name_of};
use super::refusal::Refusal;
use crate::error_chain;
use crate::kubernetes::{self, Change, Client, Events, Pod};
use crate::pods::PodCgroup;

/// Of this program, in events.
const COMPONENT: &str = "outrigger-agent";
/// What the watch may be behind a cgroup.
const LATE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(10);

/// Of the node that is served.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    pub node: String,
    /// One that asks for no credentials. `None`: that of this pod.
    pub server: Option<String>,
}

impl Kubernetes {
    pub(super) fn client(&self) -> Result<Client, kubernetes::Error> {
        match &self.server {
            Some(server) => Client::anonymous(server),
            None => Client::in_cluster(),
        }
    }
}

pub(super) struct Cluster {
    client: Client,
    node: String,
    table: Meshed<PodCgroup>,
    /// For those who serve a pod.
    known: HashMap<String, watch::Sender<Option<Arc<Pod>>>>,
    events: Events,
    changes: Pin<Box<dyn Stream<Item = Change<Pod>> + Send>>,
    /// UIDs that the watch has not told of.
    wanted: BTreeSet<String>,
    asking: Option<JoinHandle<Listed>>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Task {
    Serve(PodCgroup),
    End(PodCgroup),
    /// What is pinned by this name.
    Remove(String),
    /// It can have no sidecar here.
    Refuse {
        uid: String,
        name: String,
        why: String,
    },
}

impl Cluster {
    /// Of these pods programs are pinned. Writes events in one of the tasks.
    pub(super) fn new(
        client: Client,
        node: &str,
        installed: impl IntoIterator<Item = String>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (events, write) = Events::new(client.clone(), COMPONENT, node.into());
        tasks.spawn(write);
        Self {
            changes: Box::pin(kubernetes::on_node(&client, node)),
            client,
            node: node.into(),
            table: Meshed::new(installed),
            known: HashMap::new(),
            events,
            wanted: BTreeSet::new(),
            asking: None,
        }
    }

    /// Waits for the API server. Cancelled, it loses nothing.
    pub(super) async fn next(&mut self) -> Vec<Task> {
        tokio::select! {
            Some(change) = self.changes.next() => self.changed(change),
            asked = answer(&mut self.asking) => {
                self.asking = None;
                self.asked(asked)
            }
        }
    }

    pub(super) fn populated(&mut self, pod: &PodCgroup) -> Vec<Task> {
        let Some(uid) = pod.uid() else {
            tracing::debug!(pod = %pod.path().display(), "no pod of Kubernetes");
            return Vec::new();
        };
        let effects = self.table.populated(uid.as_str(), pod.clone());
        self.follow(effects)
    }

    pub(super) fn emptied(&mut self, pod: &PodCgroup) -> Vec<Task> {
        let effects = pod.uid().map(|uid| self.table.emptied(uid.as_str()));
        self.follow(effects.unwrap_or_default())
    }

    pub(super) fn gone(&mut self, pod: &PodCgroup) -> Vec<Task> {
        let Some(uid) = pod.uid() else {
            return Vec::new();
        };
        self.known.remove(uid.as_str());
        let effects = self.table.gone(uid.as_str());
        self.follow(effects)
    }

    /// Whether a pod that somebody asks for may be installed.
    pub(super) fn permits(&self, pod: &PodCgroup) -> anyhow::Result<()> {
        let uid = pod
            .uid()
            .context("it is no pod of Kubernetes; name one by its UID")?;
        let Some(found) = self.table.pod(uid.as_str()) else {
            bail!(
                "the API server has told of no pod {uid} on the node {}; if it cannot be asked, the agent's log says why",
                self.node
            );
        };
        let name = format!("{}/{}", found.namespace, found.name);
        if !found.is_meshed {
            bail!(
                "the pod {name} has no container {} among its initContainers, which it can only be given when it is made; let it \
                 be made anew in a namespace that is enabled",
                kubernetes::CONTAINER
            );
        }
        match Refusal::of(&found) {
            Some(why) => bail!("{name}: {why}"),
            None => Ok(()),
        }
    }

    /// What is known of a pod from now on.
    pub(super) fn known(&mut self, pod: &PodCgroup) -> Known {
        let uid = pod.uid().map(|uid| uid.as_str().to_owned()).unwrap_or_default();
        let now = self.table.pod(&uid);
        let known = self.known.entry(uid);
        known.or_insert_with(|| watch::Sender::new(now)).subscribe()
    }

    fn changed(&mut self, change: Change<Pod>) -> Vec<Task> {
        let effects = match change {
            Change::All(pods) => self.table.all(pods),
            Change::Applied(pod) => self.table.applied(pod),
            Change::Gone(pod) => {
                self.table.deleted(&pod);
                Vec::new()
            }
            Change::Trouble(error) => {
                let waiting = self.table.waiting();
                tracing::warn!(
                    error,
                    waiting,
                    "the API server tells nothing of this node's pods; those that are known go on, new ones wait"
                );
                Vec::new()
            }
        };
        self.follow(effects)
    }

    fn asked(&mut self, asked: anyhow::Result<Vec<Pod>>) -> Vec<Task> {
        let wanted = std::mem::take(&mut self.wanted);
        let pods = match asked {
            Ok(pods) => pods,
            Err(error) => {
                let (error, pods) = (format!("{error:#}"), wanted.len());
                tracing::warn!(error, pods, "pods wait until the API server tells of them");
                return Vec::new();
            }
        };
        let new = pods.into_iter().filter(|pod| self.table.is_unknown(name_of(pod)));
        let new: Vec<Pod> = new.collect();
        let effects = new.into_iter().flat_map(|pod| self.table.applied(pod)).collect();
        for uid in wanted.iter().filter(|uid| self.table.is_unknown(uid)) {
            tracing::info!(
                pod = uid,
                node = self.node,
                "no pod of this node as the API server has it: left alone"
            );
        }
        self.follow(effects)
    }

    fn follow(&mut self, effects: Vec<Effect<PodCgroup>>) -> Vec<Task> {
        let mut tasks = Vec::new();
        for effect in effects {
            match effect {
                Effect::Serve(pod) => tasks.push(Task::Serve(pod)),
                Effect::End(pod) => tasks.push(Task::End(pod)),
                Effect::Remove(name) => tasks.push(Task::Remove(name)),
                Effect::Ask(uid) => self.ask(uid),
                Effect::Learn(uid, pod) => {
                    if let Some(known) = self.known.get(&uid) {
                        known.send_replace(Some(pod));
                    }
                }
                Effect::Refuse(pod, why) => {
                    let (name, namespace) = (&pod.name, &pod.namespace);
                    tracing::warn!(pod = name, namespace, "a pod is refused: {why}");
                    self.events.tell(why.told(&pod));
                    tasks.push(Task::Refuse {
                        uid: name_of(&pod).to_owned(),
                        name: format!("{namespace}/{name}"),
                        why: why.to_string(),
                    });
                }
            }
        }
        tasks
    }

    /// All that are not known by then, in one question.
    fn ask(&mut self, uid: String) {
        self.wanted.insert(uid);
        if self.asking.is_none() {
            let (client, node) = (self.client.clone(), self.node.clone());
            self.asking = Some(tokio::spawn(async move {
                sleep(LATE).await;
                list(&client, &node).await
            }));
        }
    }
}

type Listed = anyhow::Result<Vec<Pod>>;

/// Of a question that is asked; where there is none it never comes.
async fn answer(asking: &mut Option<JoinHandle<Listed>>) -> Listed {
    match asking {
        Some(asking) => asking.await?,
        None => pending().await,
    }
}

async fn list(client: &Client, node: &str) -> Listed {
    let listed = timeout(PATIENCE, kubernetes::list_on_node(client, node)).await;
    Ok(listed.context("the API server does not answer in time")??)
}

/// Tells every pod that asks for a sidecar that this node can serve none.
pub(super) async fn refuse_all(client: Client, node: &str, error: &(dyn std::error::Error + 'static)) {
    let why = Refusal::Node(error_chain(error));
    let pods = match list(&client, node).await {
        Ok(pods) => pods,
        Err(error) => {
            return tracing::warn!(error = format!("{error:#}"), "the pods of this node are not told");
        }
    };
    let (events, write) = Events::new(client, COMPONENT, node.into());
    for pod in pods.iter().filter(|pod| pod.is_meshed) {
        events.tell(why.told(pod));
    }
    drop(events);
    if timeout(PATIENCE, write).await.is_err() {
        tracing::warn!("not every pod of this node could be told in time");
    }
}
