//! A session that the agent of the node has granted: asked for at a door in the pod's network namespace, before the first port
//! is bound. Installs nothing, and needs no privilege.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{io, mem};

use anyhow::{Context, bail};
use tokio::time::sleep;

use super::agent::{done, say};
use super::takeover::{self, Former, GrantedHandover, Parts, Takeover};
use crate::datapath::{self, Control, Descriptors, Generation, Policy, Secret, Session, Steered};
use crate::existing::{Existing, Settled};
use crate::grant::{self, Answer, Ask, Door, Given, Request};
use crate::intercept::RawSockets;
use crate::lifecycle::messages::{Listener, Messages};
use crate::model::SpiffeId;
/// Between two tries where nobody listens yet.
const AGAIN: Duration = Duration::from_millis(100);

/// How long a proxy may have the pod that cannot be asked for it, because it has ended a moment ago.
const ENDING: Duration = Duration::from_secs(5);

pub(super) struct Granted {
    session: Session,
    handover: GrantedHandover,
    /// Another proxy has the pod until this one has told it.
    succeeds: bool,
    generation: Mutex<Option<Generation>>,
    raw: Mutex<Vec<RawSockets>>,
    /// The directory of the pod's pins, which is not in sight of a container either: the lease is a lock on it.
    pins: PathBuf,
    /// Where the agent asks about flows. `None`: it does not.
    questions: Mutex<Option<UnixListener>>,
    /// At start. The agent knows of none.
    policy: Policy,
}

/// What is wanted of the agent, and what to do where a proxy serves the pod.
pub(super) struct Wanted<'a> {
    pub(super) ask: Ask,
    pub(super) policy: Policy,
    pub(super) takeover: Takeover,
    pub(super) identity: &'a SpiffeId,
}

impl Granted {
    /// Waits until somebody listens at the door: the agent opens it when it has found the pod, by one of its processes. From a
    /// proxy that serves the pod comes the lease.
    pub(super) async fn ask(door: &Door, wanted: Wanted<'_>) -> anyhow::Result<(Self, Option<Former>)> {
        let begun = Instant::now();
        let Wanted {
            ask,
            policy,
            takeover,
            identity,
        } = wanted;
        let shards = ask.shards;
        let mut told = false;
        loop {
            let agent = connect(door).await?;
            let (answer, descriptors) = say(&agent, &Request::Ask(ask.clone()), &[])?;
            match answer {
                Answer::Granted(given) => {
                    let granted = Self::of(agent, given, descriptors, shards, policy)?;
                    return Ok((granted, None));
                }
                Answer::Serving { owner } if takeover == Takeover::Refuse => bail!(owner),
                Answer::Serving { owner } => {
                    let conversation = descriptors.into_iter().next();
                    let conversation = conversation.context("the agent hands over no conversation")?;
                    let asked = takeover::ask(Messages::received(conversation), &[], identity);
                    match asked.context(owner)? {
                        takeover::Asked::Granted(lease, former) => {
                            let request = Request::Succeed {
                                ask,
                                generation: former.generation(),
                            };
                            let (answer, descriptors) = say(&agent, &request, &[lease.as_fd()])?;
                            let Answer::Granted(given) = answer else {
                                bail!("the agent at {door} answers what this version does not understand");
                            };
                            let mut granted = Self::of(agent, given, descriptors, shards, policy)?;
                            granted.succeeds = true;
                            return Ok((granted, Some(former)));
                        }
                        takeover::Asked::Nobody(why) if begun.elapsed() > ENDING => return Err(why),
                        takeover::Asked::Nobody(_) => {}
                    }
                }
                Answer::Busy { why } if begun.elapsed() > ENDING => {
                    bail!("{why}, and cannot be asked to hand it over; stop that sidecar first")
                }
                Answer::Busy { .. } => {}
                Answer::Wait { why } => {
                    if !mem::replace(&mut told, true) {
                        tracing::warn!(%door, why, "waiting for the agent of this node, which does not know this proxy yet");
                    }
                }
                _ => bail!("the agent at {door} answers what this version does not understand"),
            }
            sleep(AGAIN).await;
        }
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
        let listener = take(grant::HANDOVER).context("the agent hands over no socket for the next proxy")?;
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
        let questions = take(grant::QUESTIONS).map(UnixListener::from);
        let descriptors = Descriptors::of_named_without_bpf(named)?;
        let session = Session::granted(descriptors, generation.first_shard(), &control)?;
        let (process, descriptor) = (std::process::id(), lease.as_raw_fd());
        let pins = format!("/proc/{process}/fd/{descriptor}").into();
        let handover = GrantedHandover::new(Parts {
            right: session.write_right(),
            generation: generation.number(),
            lease,
            listener: Listener::received(listener),
            agent,
        });
        Ok(Self {
            session,
            handover,
            succeeds: false,
            generation: Mutex::new(Some(generation)),
            raw: Mutex::new(raw),
            pins,
            questions: Mutex::new(questions),
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

    pub(super) fn pins(&self) -> &Path {
        &self.pins
    }

    /// One for each shard, or none where SYNs are not held.
    pub(super) fn raw_sockets(&self) -> Vec<RawSockets> {
        mem::take(&mut *self.raw.lock().expect("nobody panics with it"))
    }

    pub(super) fn questions(&self) -> Option<UnixListener> {
        self.questions.lock().expect("nobody panics with it").take()
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
        done(self.handover.say(&request, &descriptors)?)
    }

    pub(super) fn activate(&self) -> anyhow::Result<()> {
        done(self.handover.say(&Request::Activate, &[])?)?;
        self.session.takes_over();
        // Before a shard accepts the first connection. Until then that of the proxy before is in force.
        Ok(self.session.policy().apply(&self.policy)?)
    }

    /// The agent does, which knows whether the pod was served before. Nobody else is asked for anything after that, unless a proxy
    /// has the pod until it has heard of this one.
    pub(super) fn settle(&self, existing: Existing) -> Settled {
        let request = Request::Settle {
            destroy: existing == Existing::Destroy,
        };
        let settled = match self.handover.say(&request, &[]) {
            Ok((
                Answer::Settled {
                    kept,
                    destroyed,
                    failed,
                },
                _,
            )) => Settled {
                kept,
                destroyed,
                failed,
            },
            Ok(_) => unsettled("the agent answers what this version does not understand"),
            Err(error) => unsettled(&format!("{error:#}")),
        };
        if !self.succeeds {
            self.handover.leave_agent();
        }
        settled
    }

    pub(super) fn handover(&self) -> GrantedHandover {
        self.handover.clone()
    }
}

fn unsettled(why: &str) -> Settled {
    Settled {
        failed: Some(why.into()),
        ..Settled::default()
    }
}

/// Waits until somebody listens there.
pub(super) async fn connect(door: &Door) -> anyhow::Result<Messages> {
    let mut told = false;
    loop {
        match Messages::connect(door.name()) {
            Ok(agent) => return Ok(agent),
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
