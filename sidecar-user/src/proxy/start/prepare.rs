//! The first half of a start, before a connection arrives: the pod's lease, ports, programs, filters, listeners. Attaches
//! nothing, so that a failure leaves everything as it was.

use std::io;
use std::os::fd::AsFd;

use super::super::fixed::Fixed;
use super::super::granted::{self, Granted};
use super::super::kernel::Kernel;
use super::super::shard::Truthful;
use super::super::takeover::{self, Former};
use super::activate::Listening;
use super::opened::Opened;
use crate::datapath::{self, Datapath, Lease, PodTarget};
use crate::intercept::{Bound, Listeners, RawSockets};

pub(super) struct Owned {
    /// `None`: nothing is intercepted.
    pod: Option<Claim>,
    /// A proxy that serves the pod.
    former: Option<Former>,
}

/// Whoever has one is the pod's only proxy.
enum Claim {
    /// To install what it needs by itself.
    Own(PodTarget, Lease),
    /// The agent of the node has installed it.
    Granted(Box<Granted>),
}

impl Owned {
    /// The pod before its ports: whoever is not its only proxy has touched nothing yet. From a proxy that serves the pod come
    /// the ports that only one can have.
    ///
    /// `None`: this process is to end before the agent of the node has answered.
    pub(super) async fn new(opened: &mut Opened, pod: Option<PodTarget>) -> anyhow::Result<Option<Self>> {
        let config = &opened.config;
        let Some((kernel, door)) = config.datapath.as_ref().zip(config.agent.as_ref()) else {
            return Self::own(opened, pod).map(Some);
        };
        let wanted = granted::Wanted {
            ask: granted::request(config, kernel),
            policy: kernel.policy.clone(),
            takeover: config.takeover,
            identity: &config.identity.id,
        };
        let (asked, former) = tokio::select! {
            granted = Granted::ask(door, wanted) => granted?,
            reason = opened.shutdown.requested() => {
                tracing::info!(%reason, "the agent of this node has not answered");
                return Ok(None);
            }
        };
        if let Some(kernel) = &mut opened.config.datapath {
            kernel.cgroup = asked.cgroup();
            kernel.pins = asked.pins().to_owned();
        }
        Ok(Some(Self {
            pod: Some(Claim::Granted(Box::new(asked))),
            former,
        }))
    }

    fn own(opened: &Opened, pod: Option<PodTarget>) -> anyhow::Result<Self> {
        let config = &opened.config;
        let Some((kernel, pod)) = config.datapath.as_ref().zip(pod) else {
            return Ok(Self {
                pod: None,
                former: None,
            });
        };
        let (lease, former) = takeover::own(&kernel.pins, config.takeover, &config.identity.id)?;
        Ok(Self {
            pod: Some(Claim::Own(pod, lease)),
            former,
        })
    }

    pub(super) fn bind(mut self, opened: &Opened) -> anyhow::Result<Ports> {
        let config = &opened.config;
        let mut fixed = Fixed::open(config, self.former.as_mut())?;
        let steered = config.datapath.as_ref().map(|_| datapath::LISTENERS.into());
        let bound = Bound::all(&config.intercept, steered, config.workers, fixed.hbone.take())?;
        Ok(Ports {
            bound,
            fixed,
            pod: self.pod,
            former: self.former,
        })
    }
}

pub(super) struct Ports {
    bound: Vec<Bound>,
    fixed: Fixed,
    pod: Option<Claim>,
    former: Option<Former>,
}

impl Ports {
    /// Changes nothing for connections. The programs of a proxy that is gone redirect all the time.
    pub(super) fn install(self, opened: &Opened) -> anyhow::Result<Installed> {
        let whose = self.former.as_ref().map_or(datapath::Former::Gone, |former| {
            datapath::Former::Serving(former.generation())
        });
        let kernel = match opened.config.datapath.as_ref().zip(self.pod) {
            Some((kernel, Claim::Own(pod, lease))) => {
                let datapath = Datapath::prepare(kernel, pod, lease, whose)?;
                if let Some(own) = &opened.config.own_pod {
                    own.let_probe(&datapath)?;
                }
                Some(Kernel::Installed(Box::new(datapath)))
            }
            Some((_, Claim::Granted(granted))) => Some(Kernel::Granted(granted)),
            None => None,
        };
        Ok(Installed {
            kernel,
            bound: self.bound,
            fixed: self.fixed,
            former: self.former,
        })
    }
}

pub(super) struct Installed {
    kernel: Option<Kernel>,
    bound: Vec<Bound>,
    fixed: Fixed,
    former: Option<Former>,
}

impl Installed {
    /// Before anybody listens: a connection that arrives before the filter is accepted, whether anybody answers at its
    /// destination or not.
    pub(super) fn filter(self) -> anyhow::Result<Filtered> {
        let truthful = match &self.kernel {
            Some(kernel) => hold_syns(kernel, &self.bound)?,
            None => Vec::new(),
        };
        Ok(Filtered {
            truthful,
            kernel: self.kernel,
            bound: self.bound,
            fixed: self.fixed,
            former: self.former,
        })
    }
}

/// Prepares every shard for truthful connects: one each, or none where the raw socket cannot be had.
fn hold_syns(kernel: &Kernel, bound: &[Bound]) -> anyhow::Result<Vec<Truthful>> {
    let open = || bound.iter().map(|_| RawSockets::open()).collect();
    let raw: io::Result<Vec<RawSockets>> = match kernel {
        // The agent has said so in the settings already, as it has opened them.
        Kernel::Granted(granted) => return filters(kernel, bound, granted.raw_sockets()),
        Kernel::Installed(_) => kernel.pod().netns().within(open)?,
    };
    let raw = match raw {
        Ok(raw) => raw,
        Err(error) => {
            tracing::warn!(
                %error,
                "connect() is optimistic: it succeeds before the upstream has answered, and a failure is a reset; \
                 grant CAP_NET_RAW for truthful answers"
            );
            kernel.session().set_hold(false)?;
            return Ok(Vec::new());
        }
    };
    let truthful = filters(kernel, bound, raw)?;
    kernel.session().set_hold(true)?;
    Ok(truthful)
}

fn filters(kernel: &Kernel, bound: &[Bound], raw: Vec<RawSockets>) -> anyhow::Result<Vec<Truthful>> {
    let mut truthful = Vec::new();
    let sockets = bound.iter().filter_map(Bound::outbound);
    for ((shard, outbound), raw) in (0..).zip(sockets).zip(raw) {
        truthful.push((kernel.hold(shard, outbound)?, raw));
    }
    Ok(truthful)
}

pub(super) struct Filtered {
    truthful: Vec<Truthful>,
    kernel: Option<Kernel>,
    bound: Vec<Bound>,
    fixed: Fixed,
    former: Option<Former>,
}

impl Filtered {
    pub(super) fn listen(self) -> anyhow::Result<Listening> {
        let listeners: Vec<Listeners> = self
            .bound
            .into_iter()
            .map(Bound::listen)
            .collect::<Result<_, _>>()?;
        if let Some(kernel) = &self.kernel {
            for (shard, listeners) in (0..).zip(&listeners) {
                let steered = listeners.steered.as_ref();
                kernel.steer(
                    shard,
                    datapath::Steered {
                        inbound: steered.map(|steered| steered.inbound.as_fd()),
                        outbound: steered.map(|steered| steered.outbound.as_fd()),
                        hbone: Some(listeners.hbone.as_fd()),
                    },
                )?;
            }
        }
        let mut truthful = self.truthful.into_iter();
        Ok(Listening {
            shards: listeners.into_iter().map(|l| (l, truthful.next())).collect(),
            kernel: self.kernel,
            fixed: self.fixed,
            former: self.former,
        })
    }
}
