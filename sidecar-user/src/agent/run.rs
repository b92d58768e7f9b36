//! From the start of the agent to its end: what is pinned is adopted, what is missing installed, what is nobody's removed. Then
//! it follows the pods that come and go. Its end changes nothing for any of them; `leave.rs` has it.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use super::answers::Answers;
use super::caller::Home;
use super::cluster::{Cluster, Kubernetes, Task};
use super::leave::{self, EMPTIED, Gate, Own};
use super::register::Register;
use super::serving::{self, Serving};
use super::{api, cluster, control, figures, fit, following, introduce, memory, probes, status};
use crate::datapath::{self, Lease, Node};
use crate::error_chain;
use crate::grant::{Answer, Request, Wanted};
use crate::lifecycle::messages::{Listener, Messages};
use crate::lifecycle::{self, Shutdown};
use crate::model::LocalPod;
use crate::observe::{AdminSocket, NodeAdmin, Observer, serve_node};
use crate::pods::{self, Event, Finder, PodCgroup, Roots, SELF_ATTACHED, Watch, cgroup_of};
use crate::uplink::{self, Local};

/// Everything that an agent needs to know, validated.
#[derive(Clone, Debug)]
pub struct Config {
    pub pins: PathBuf,
    /// Directories whose children are pods.
    pub pods: Vec<PathBuf>,
    /// The cgroup in a pod's cgroup where its sidecar runs, where there is no Kubernetes.
    pub sidecar: String,
    pub kubernetes: Option<Kubernetes>,
    /// Where pods are asked for.
    pub socket: PathBuf,
    /// Where it is asked about them.
    pub admin: Option<PathBuf>,
    /// Where metrics and probes are answered, on the host.
    pub status: Option<SocketAddr>,
    /// Of the sockets at which sidecars answer.
    pub sidecars: PathBuf,
    /// For flows that have ended.
    pub memory: memory::Limits,
    /// Whom the sidecars of this node ask through it.
    pub control: Option<uplink::Config>,
    /// Where it is asked over the API server.
    pub api: Option<super::ApiConfig>,
}

impl Config {
    /// The directory where its sidecars listen for it.
    fn handover(&self) -> PathBuf {
        self.socket.with_extension("handover")
    }
}

/// How long somebody may take to say what is wanted, while others wait.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// Serves until SIGTERM or SIGINT.
pub fn run(config: Config) -> anyhow::Result<()> {
    lifecycle::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime of the agent")?;
    let ended = runtime.block_on(serve(config));
    runtime.shutdown_background();
    ended
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let shutdown = Shutdown::catch()?;
    let lease = match Lease::take(&config.pins.join("node")) {
        Err(error @ datapath::Error::Owned { .. }) => {
            return Err(error).context("pins: another agent serves this node");
        }
        taken => taken.context("pins")?,
    };
    let gate = Arc::new(Gate::default());
    let ended = serve_until_told(config.clone(), gate.clone(), shutdown).await;
    let own = Own {
        pins: &config.pins,
        socket: &config.socket,
        of_sidecars: [config.handover(), config.sidecars.clone()],
    };
    leave::leave(&own, &gate, lease);
    ended
}

async fn serve_until_told(config: Config, gate: Arc<Gate>, mut shutdown: Shutdown) -> anyhow::Result<()> {
    let pins = config.pins.join("node");
    let kubernetes = match &config.kubernetes {
        Some(of) => Some((of.client().context("node")?, of.node.clone())),
        None => None,
    };
    let loaded = fit::check().map_err(anyhow::Error::from);
    let node = match loaded.and_then(|()| Ok(Node::load(&pins)?)) {
        Ok(node) => Arc::new(node),
        Err(error) => {
            if let Some((client, node)) = kubernetes {
                cluster::refuse_all(client, &node, &*error).await;
            }
            return Err(error);
        }
    };
    // Whoever names directories means those alone.
    let roots = match config.pods.is_empty() {
        true => Roots::of_host(&[])?,
        false => Roots::below(config.pods.clone(), &config.pods)?,
    };
    let register = Register::open(&config.sidecars, config.memory);
    let register =
        register.with_context(|| format!("cannot use the directory {}", config.sidecars.display()))?;
    let register = Arc::new(register);
    let observer = Observer::plain();
    figures::show(&observer, register.clone());
    observer.figures(lifecycle::figures);
    let adopted = observer
        .readiness()
        .condition("pods", "the pods of this node have not been looked at yet");
    // They end with this future.
    let mut tasks = JoinSet::new();
    tasks.spawn(following::run(register.clone()));
    let node_name = config.kubernetes.as_ref().map(|of| of.node.clone());
    if let Some(path) = &config.admin {
        let answers = Answers::new(register.clone(), node_name.clone());
        tasks.spawn(answer(AdminSocket::bind(path)?, answers, &observer));
    }
    if let Some(address) = config.status {
        tasks.spawn(status::serve(address, &observer)?);
    }
    let requests = Listener::bind_path(&config.socket)
        .with_context(|| format!("socket: cannot listen at {}", config.socket.display()))?;
    let mut watch = Watch::new(&roots)?;
    let client = kubernetes.as_ref().map(|(client, _)| client.clone());
    let control = control::open(config.control.clone(), client.clone(), &observer, &mut tasks)?;
    if let (Some(config), Some(client), Some(local)) = (&config.api, client, &control) {
        let answers = Answers::new(register.clone(), node_name.clone());
        api::open(config, client, local, answers, &observer, &mut tasks)?;
    }
    let mut pods = Pods {
        control,
        finder: Arc::new(Finder::new(roots)?),
        serving: HashMap::new(),
        cluster: None,
        node,
        register,
        config,
        gate,
    };
    pods.sweep(&mut watch);
    pods::sweep(&pods.config.pins.join(SELF_ATTACHED), None);
    if let Some((client, name)) = kubernetes {
        tasks.spawn(probes::follow_addresses(pods.node.clone()));
        pods.cluster = Some(Cluster::new(client, &name, pods.pinned(), &mut tasks));
    }
    adopted.met();
    tracing::info!(pins = %pods.config.pins.display(), pods = watch.pods().count(), "the agent serves this node");
    tokio::spawn(lifecycle::notify::follow(observer.readiness().clone()));
    loop {
        let event = tokio::select! {
            event = watch.next() => event?,
            due = heard(&mut pods.cluster) => {
                pods.follow(due);
                continue;
            }
            asked = requests.next() => {
                let asked = asked?;
                let answer = pods.asked(&asked, &mut watch).unwrap_or_else(|error| Answer::Refused { why: format!("{error:#}") });
                let text = serde_json::to_vec(&answer)?;
                // Whoever does not wait for the answer needs none.
                let _ = asked.send(&text, &[]);
                continue;
            }
            signal = shutdown.requested() => {
                tracing::info!(signal, pods = pods.serving.len(), "the agent stops; its pods go on without it");
                drop(requests);
                pods.end_all(&mut watch).await;
                tasks.shutdown().await;
                return Ok(());
            }
        };
        pods.take(event);
    }
}

/// Answers at the admin socket until dropped.
fn answer(socket: AdminSocket, answers: Answers, observer: &Observer) -> impl Future<Output = ()> + use<> {
    let admin = NodeAdmin {
        observer: observer.clone(),
        answer: Box::new(move |asked| answers.answer(asked)),
    };
    async move {
        if let Err(error) = serve_node(socket, admin).await {
            tracing::error!(error = error_chain(&error), "nobody can ask this agent");
        }
    }
}

/// What the API server has told. Nothing where there is none.
async fn heard(cluster: &mut Option<Cluster>) -> Vec<Task> {
    match cluster {
        Some(cluster) => cluster.next().await,
        None => std::future::pending().await,
    }
}

struct Pods {
    config: Config,
    /// On a node of Kubernetes.
    cluster: Option<Cluster>,
    node: Arc<Node>,
    register: Arc<Register>,
    finder: Arc<Finder>,
    control: Option<Local>,
    gate: Arc<Gate>,
    /// By the number of the cgroup.
    serving: HashMap<u64, Served>,
}

struct Served {
    task: JoinHandle<()>,
    /// The pod is to be installed, also where it is already.
    again: Arc<Notify>,
}

impl Pods {
    fn take(&mut self, event: Event) {
        let due = match (&event, &mut self.cluster) {
            (Event::Appeared(pod), _) => {
                tracing::debug!(pod = %pod.path().display(), "a pod appears");
                return;
            }
            (Event::Populated(pod), Some(cluster)) => cluster.populated(pod),
            (Event::Populated(pod), None) => vec![Task::Serve(pod.clone())],
            // Its namespace may be another one when a process comes again.
            (Event::Emptied(pod), Some(cluster)) => cluster.emptied(pod),
            (Event::Emptied(pod), None) => vec![Task::End(pod.clone())],
            (Event::Gone(pod), Some(cluster)) => {
                self.register.readmit(&name_of(pod));
                // It may have had a sidecar that attached by itself, and was killed with it.
                pods::sweep(&self.config.pins.join(SELF_ATTACHED), None);
                cluster.gone(pod)
            }
            (Event::Gone(pod), None) => vec![Task::End(pod.clone()), Task::Remove(name_of(pod))],
        };
        self.follow(due);
    }

    fn follow(&mut self, due: Vec<Task>) {
        for task in due {
            match task {
                Task::Serve(pod) if !self.is_served(&pod) => {
                    let again = Arc::new(Notify::new());
                    let task = tokio::spawn(self.serve(pod.clone(), again.clone()));
                    self.serving.insert(pod.id(), Served { task, again });
                }
                Task::Serve(_) => {}
                Task::End(pod) => self.end(&pod),
                Task::Refuse { uid, name, why } => self.register.refuse(uid, name, why),
                Task::Remove(name) => {
                    self.register.gone(&name);
                    self.remove(&self.pins_of(&name));
                    tracing::info!(pod = name, "a pod is gone");
                }
            }
        }
    }

    /// What somebody asks of the agent itself.
    fn asked(&mut self, asked: &Messages, watch: &mut Watch) -> anyhow::Result<Answer> {
        ensure!(
            asked.peer()?.is_trusted(),
            "only root and the agent's own user may ask for that"
        );
        let message = asked.receive(Some(FIRST_WORD))?.context("nothing was said")?;
        match serde_json::from_slice(&message.text)? {
            Request::Install(wanted) => self.install(wanted, watch)?,
            Request::Detach { pod, force } => self.take_off(pod, force)?,
            _ => bail!("it says its words at another door"),
        }
        Ok(Answer::Done)
    }

    fn find(&self, wanted: Wanted) -> anyhow::Result<PodCgroup> {
        Ok(match wanted {
            Wanted::Cgroup(path) => self.finder.by_path(&path)?,
            Wanted::Pid(pid) => self.finder.by_pid(pid)?,
            Wanted::Uid(uid) => self.finder.by_uid(&uid.parse()?, None)?,
        })
    }

    /// Serves a pod as if it had been found. Programs that were taken off are put back.
    fn install(&mut self, wanted: Wanted, watch: &mut Watch) -> anyhow::Result<()> {
        let pod = self.find(wanted)?;
        if let Some(cluster) = &self.cluster {
            cluster.permits(&pod)?;
        }
        tracing::info!(pod = %pod.path().display(), "a pod is asked for");
        watch.follow(&pod)?;
        match self.serving.get(&pod.id()) {
            Some(serving) if self.is_served(&pod) => serving.again.notify_one(),
            // Also where nothing has changed: it may have failed before.
            _ => self.take(Event::Populated(pod)),
        }
        Ok(())
    }

    /// Until somebody asks for the pod, its sidecar starts again, or the next agent comes.
    fn take_off(&self, wanted: Wanted, force: bool) -> anyhow::Result<()> {
        let pod = self.find(wanted)?;
        let pins = self.pins_of(&name_of(&pod));
        ensure!(pins.exists(), "nothing is installed for {}", pod.path().display());
        datapath::take_off(&pins, force)?;
        tracing::warn!(pod = %pod.path().display(), "a pod is not intercepted any more, because somebody asked for that; `outrigger install` intercepts it again");
        Ok(())
    }

    fn is_served(&self, pod: &PodCgroup) -> bool {
        let serving = self.serving.get(&pod.id());
        serving.is_some_and(|serving| !serving.task.is_finished())
    }

    fn end(&mut self, pod: &PodCgroup) {
        if let Some(serving) = self.serving.remove(&pod.id()) {
            serving.task.abort();
        }
    }

    /// Nobody is served any more. Takes note of pods that go meanwhile, and returns once none is left or one stays.
    async fn end_all(&mut self, watch: &mut Watch) {
        for (_, serving) in self.serving.drain() {
            serving.task.abort();
        }
        self.gate.shut();
        let patience = tokio::time::sleep(EMPTIED);
        tokio::pin!(patience);
        while self.are_about_to_go(watch) {
            tokio::select! {
                event = watch.next() => match event {
                    Ok(event @ Event::Gone(_)) => self.take(event),
                    Ok(_) => {}
                    Err(_) => return,
                },
                () = &mut patience => return,
            }
        }
    }

    /// Whether something is pinned of pods, each of which has no process any more.
    fn are_about_to_go(&self, watch: &Watch) -> bool {
        let pinned = self.pinned();
        let is_empty = |name: &String| {
            let mut pods = watch.pods().filter(|pod| name_of(pod) == *name);
            // What is pinned of a pod that cannot be seen stays.
            pods.next()
                .is_some_and(|pod| !matches!(pod.is_populated(), Ok(Some(true)) | Err(_)))
        };
        !pinned.is_empty() && pinned.iter().all(is_empty)
    }

    /// Installs a pod, closed, and answers its sidecars until it is aborted.
    fn serve(&mut self, cgroup: PodCgroup, again: Arc<Notify>) -> impl Future<Output = ()> + use<> {
        let name = name_of(&cgroup);
        let sidecar = match &mut self.cluster {
            Some(cluster) => Home::Container {
                pod: cgroup.path().into(),
                known: cluster.known(&cgroup),
            },
            None => Home::Cgroup(cgroup.path().join(&self.config.sidecar)),
        };
        let uid = name.as_str().into();
        let control = self.control.as_ref();
        serving::serve(Serving {
            finder: self.finder.clone(),
            node: self.node.clone(),
            gate: self.gate.clone(),
            register: self.register.clone(),
            control: control.map(|control| control.share(LocalPod { uid })),
            pins: self.pins_of(&name),
            handover: self.config.handover(),
            cgroup,
            name,
            sidecar,
            again,
        })
    }

    /// Of which something is pinned.
    fn pinned(&self) -> Vec<String> {
        let pinned = fs::read_dir(self.config.pins.join("pods"))
            .into_iter()
            .flatten()
            .flatten();
        pinned
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    fn pins_of(&self, name: &str) -> PathBuf {
        self.config.pins.join("pods").join(name)
    }

    /// Adopts the pods that were asked for, and removes what is pinned of those that are gone.
    fn sweep(&self, watch: &mut Watch) {
        let found: Vec<String> = watch.pods().map(name_of).collect();
        for name in self.pinned() {
            if found.contains(&name) {
                continue;
            }
            let pins = self.pins_of(&name);
            match cgroup_of(&pins) {
                Ok(Some(path)) => match PodCgroup::open(&path).and_then(|pod| watch.follow(&pod)) {
                    Ok(()) => tracing::info!(pod = name, "a pod that was asked for is adopted"),
                    Err(error) => {
                        tracing::warn!(pod = name, error = error_chain(&error), "a pod is not adopted")
                    }
                },
                Ok(None) => {
                    tracing::info!(pod = name, "what is pinned of a pod that is gone is removed");
                    self.remove(&pins);
                }
                // What cannot be asked may hold a pod closed.
                Err(error) => tracing::warn!(pod = name, error, "what is pinned stays"),
            }
        }
    }

    fn remove(&self, pins: &Path) {
        introduce::forget(&self.config.handover(), pins);
        if let Err(error) = self.node.give_up(pins) {
            tracing::warn!(pins = %pins.display(), error = error_chain(&error), "what is pinned of a pod cannot be removed");
        }
    }
}

/// Its directory below the pins.
fn name_of(pod: &PodCgroup) -> String {
    match pod.uid() {
        Some(uid) => uid.to_string(),
        None => pod.name().to_string_lossy().into_owned(),
    }
}
