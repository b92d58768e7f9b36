//! A session that the agent of the node has granted: asked for at a door in the pod's network namespace, before the first port
//! is bound. Installs nothing, and needs no privilege.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::sleep;

use crate::datapath::{self, Control, Descriptors, Generation, Policy, Secret, Session, Steered};
use crate::grant::{self, Answer, Ask, Door, Given, Request};
use crate::intercept::RawSockets;
use crate::lifecycle::messages::{Message, Messages};

/// Far more than an agent takes, which loads a program for each session.
const ANSWER: Duration = Duration::from_secs(10);

/// Between two tries where nobody listens yet.
const AGAIN: Duration = Duration::from_millis(100);

pub(super) struct Granted {
    session: Session,
    /// Until the session is in force.
    agent: Messages,
    generation: Mutex<Option<Generation>>,
    raw: Mutex<Vec<RawSockets>>,
    /// The pod is this process's for as long as this is open, whatever becomes of the agent.
    lease: OwnedFd,
    /// At start. The agent knows of none.
    policy: Policy,
}

impl Granted {
    /// Waits until somebody listens at the door: the agent opens it when it has found the pod, by one of its processes.
    pub(super) async fn ask(door: &Door, ask: Ask, policy: Policy) -> anyhow::Result<Self> {
        let mut told = false;
        let agent = loop {
            match Messages::connect(door.name()) {
                Ok(agent) => break agent,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("interception.agent: {door} cannot be asked"));
                }
            }
            if !told {
                tracing::warn!(
                    %door,
                    "waiting for the agent of this node: nobody listens at interception.agent in this network namespace; \
                     start `outrigger agent` on this node"
                );
                told = true;
            }
            sleep(AGAIN).await;
        };
        let shards = ask.shards;
        let answer = say(&agent, &Request::Ask(ask), &[])?;
        let (Answer::Granted(given), descriptors) = answer else {
            bail!("the agent at {door} answers what this version does not understand");
        };
        Self::of(agent, given, descriptors, shards, policy)
    }

    fn of(
        agent: Messages,
        given: Given,
        descriptors: Vec<OwnedFd>,
        shards: usize,
        policy: Policy,
    ) -> anyhow::Result<Self> {
        if given.descriptors.len() != descriptors.len() {
            bail!(
                "the agent names {} descriptors and hands {} over; the limit of open files (ulimit -n) may be too low",
                given.descriptors.len(),
                descriptors.len()
            );
        }
        let mut named: Vec<(String, OwnedFd)> = given.descriptors.into_iter().zip(descriptors).collect();
        let mut take = |name: &str| {
            let at = named.iter().position(|(of, _)| of == name)?;
            Some(named.swap_remove(at).1)
        };
        let lease = take(grant::LEASE).context("the agent hands over no lease")?;
        let slots = take(grant::SLOTS).context("the agent hands over no slots")?;
        let generation = Generation::received(given.generation, slots);
        let raw = (0..shards).filter(|_| given.holds).map(|shard| {
            let mut raw = |family| take(&grant::raw_socket(shard, family));
            let v4 = raw("v4").context("the agent hands over no raw socket")?;
            Ok(RawSockets::of(v4, raw("v6")))
        });
        let raw = raw.collect::<anyhow::Result<_>>()?;
        let secret = take(grant::SECRET).context("the agent hands over no secret")?;
        let secret = Secret::of_file(secret).context("the agent hands over no secret")?;
        let control = Control::open(secret)?;
        let descriptors = Descriptors::of_named_without_bpf(named)?;
        let session = Session::granted(descriptors, generation.first_shard(), &control)?;
        Ok(Self {
            session,
            agent,
            generation: Mutex::new(Some(generation)),
            raw: Mutex::new(raw),
            lease,
            policy,
        })
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// A path to the cgroup of the pod, which is not in sight of a container: by this process's descriptor, for any process that
    /// may look.
    pub(super) fn cgroup(&self) -> PathBuf {
        let path = self.session.pod().cgroup_path();
        match path.strip_prefix("/proc/self") {
            Ok(below) => Path::new("/proc")
                .join(std::process::id().to_string())
                .join(below),
            Err(_) => path.into(),
        }
    }

    /// The directory of the pod's pins, which is not in sight of a container either: the lease is a lock on it.
    pub(super) fn pins(&self) -> PathBuf {
        let (process, descriptor) = (std::process::id(), self.lease.as_raw_fd());
        format!("/proc/{process}/fd/{descriptor}").into()
    }

    /// One for each shard, or none where SYNs are not held.
    pub(super) fn raw_sockets(&self) -> Vec<RawSockets> {
        std::mem::take(&mut *self.raw.lock().expect("nobody panics with it"))
    }

    pub(super) fn generation(&self) -> Option<Generation> {
        self.generation.lock().expect("nobody panics with it").take()
    }

    pub(super) fn steer(&self, shard: u32, listeners: Steered<'_>) -> anyhow::Result<()> {
        let all = [listeners.inbound, listeners.outbound, listeners.hbone];
        let given: Vec<_> = grant::STEERED.iter().zip(all).collect();
        let names = given.iter().filter(|(_, listener)| listener.is_some());
        let request = Request::Steer {
            shard,
            listeners: names.map(|(name, _)| (*name).to_string()).collect(),
        };
        let descriptors: Vec<BorrowedFd<'_>> = given.iter().filter_map(|(_, listener)| *listener).collect();
        done(say(&self.agent, &request, &descriptors)?)
    }

    pub(super) fn activate(&self) -> anyhow::Result<()> {
        done(say(&self.agent, &Request::Activate, &[])?)?;
        self.session.takes_over();
        // Before a shard accepts the first connection.
        Ok(self.session.policy().apply(&self.policy)?)
    }
}

fn done((answer, _): (Answer, Vec<OwnedFd>)) -> anyhow::Result<()> {
    match answer {
        Answer::Done => Ok(()),
        _ => bail!("the agent answers what this version does not understand"),
    }
}

fn say(
    agent: &Messages,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> anyhow::Result<(Answer, Vec<OwnedFd>)> {
    agent
        .send(&serde_json::to_vec(request)?, descriptors)
        .context("the agent of this node has ended")?;
    let answer = agent
        .receive(Some(ANSWER))
        .context("the agent of this node does not answer")?;
    let Message { text, descriptors } = answer.context("the agent of this node has ended")?;
    match serde_json::from_slice(&text).context("the agent answers what this version does not understand")? {
        Answer::Refused { why } => bail!("the agent of this node refuses: {why}"),
        answer => Ok((answer, descriptors)),
    }
}

/// What a proxy is going to be, for the agent.
pub(super) fn request(config: &super::Config, kernel: &datapath::Config) -> Ask {
    Ask {
        protocol: grant::PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
        hbone_port: kernel.hbone_port,
        shards: config.workers,
        open_ports: kernel.open_ports.clone(),
        addresses: config.addresses.clone(),
        strict: kernel.strict,
    }
}
