//! What a sidecar is given, and the steps by which it comes into force. Does not ask who gets it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::PoisonError;

use anyhow::{Context, ensure};

use super::introduce;
use super::pod::Pod;
use crate::datapath::{
    Datapath, Error, Foreign, Former, GENERATIONS, Generation, Handover, InForce, Lease, RouteMap,
    RoutesWritten, Secret, Steered,
};
use crate::error_chain;
use crate::existing::{self, Existing, Own, Settled};
use crate::grant::{self, Ask, Given};
use crate::intercept::RawSockets;
use crate::lifecycle::messages::Messages;

/// A session that a sidecar has asked for. Dropping it takes nothing away from whoever has it.
pub(super) struct Offered {
    datapath: Datapath,
    former: Former,
    is_active: bool,
    /// From the first change on, until the sidecar before knows that the pod is this one's.
    before: Option<Before>,
}

/// What is in force while another sidecar takes the pod over.
struct Before {
    in_force: Option<InForce>,
    routes: RouteMap,
    cleared: Option<RoutesWritten>,
}

/// What the end of a sidecar means for the one before it.
pub(super) enum Ended {
    /// Nothing.
    Well,
    /// It goes on: what was changed is as it was.
    PutBack,
    /// It has lost the pod, because that cannot be.
    Lost(String),
}

/// What a sidecar is given.
pub(super) type Grant = (Given, Vec<OwnedFd>);

/// Whom to ask for a pod.
pub(super) enum Whose {
    Nobodys(Lease),
    /// Of a sidecar that serves, by a conversation with it.
    Serving(Messages),
    /// Of one that cannot be asked.
    Busy,
}

/// Who has the pod.
pub(super) fn whose(pod: &Pod) -> anyhow::Result<Whose> {
    match Lease::take(&pod.pins) {
        Err(Error::Owned { .. }) => {}
        taken => return Ok(Whose::Nobodys(taken?)),
    }
    // Of one of another version it is not known which part of the slots it has. One that has given the pod up listens no more.
    let parts = match InForce::of(&pod.pins) {
        Some(in_force) => in_force.generation()..in_force.generation() + 1,
        None => 0..GENERATIONS,
    };
    for part in parts {
        if let Some(conversation) = introduce::connect(&pod.handover, &pod.pins, part)? {
            return Ok(Whose::Serving(conversation));
        }
    }
    Ok(Whose::Busy)
}

impl Offered {
    /// Prepares everything for the pod's only sidecar.
    pub(super) fn first(pod: &Pod, ask: &Ask, lease: Lease) -> anyhow::Result<(Self, Grant)> {
        Self::new(pod, ask, lease, Former::Gone)
    }

    /// Prepares everything for a sidecar that has been handed the pod over.
    pub(super) fn succeed(
        pod: &Pod,
        ask: &Ask,
        lease: Option<OwnedFd>,
        generation: usize,
    ) -> anyhow::Result<(Self, Grant)> {
        let lease = lease.context("it has not shown the lease of the pod")?;
        let lease = Lease::received(lease, &pod.pins)?;
        if let Some(in_force) = InForce::of(&pod.pins) {
            ensure!(
                in_force.generation() == generation,
                "it takes over from a sidecar with part {generation} of the slots, and the one that serves has part {}; ask again",
                in_force.generation()
            );
        }
        Self::new(pod, ask, lease, Former::Serving(generation))
    }

    /// Nothing changes for connections yet.
    fn new(pod: &Pod, ask: &Ask, lease: Lease, former: Former) -> anyhow::Result<(Self, Grant)> {
        ensure!(
            ask.protocol == grant::PROTOCOL,
            "it speaks version {} of the agent's protocol, and this agent version {}; use the same version of both",
            ask.protocol,
            grant::PROTOCOL
        );
        ensure!(
            (1..=crate::datapath::MAX_SHARDS).contains(&ask.shards),
            "workers: {} are more than the {} that there is room for, or none",
            ask.shards,
            crate::datapath::MAX_SHARDS
        );
        let handed = lease.descriptor()?;
        let config = pod.config(ask);
        let mut datapath = Datapath::prepare_on(Some(&pod.node), &config, pod.target.clone(), lease, former)?;
        let open = || (0..ask.shards).map(|_| RawSockets::open()).collect();
        let raw: io::Result<Vec<RawSockets>> = pod.target.netns().within(open)?;
        let raw = raw.unwrap_or_else(|error| {
            tracing::warn!(pod = pod.name, %error, "connect() is optimistic; grant the agent CAP_NET_RAW for truthful answers");
            Vec::new()
        });
        datapath.session().set_hold(!raw.is_empty())?;
        datapath.session().routes()?.complete(false)?;

        let generation: Generation = datapath.generation().context("no slots")?;
        let handover = introduce::listen(&pod.handover, &pod.pins, generation.number())
            .with_context(|| format!("a socket in {}", pod.handover.display()))?;
        let mut given = Named::default();
        given.add(grant::LEASE, handed.as_fd())?;
        given.add(grant::SLOTS, generation.descriptor()?.as_fd())?;
        given.add(grant::HANDOVER, handover.as_fd())?;
        for (shard, sockets) in raw.iter().enumerate() {
            for (family, socket) in sockets.named() {
                given.add(&grant::raw_socket(shard, family), socket)?;
            }
        }
        let secret = datapath.control(Secret::fresh()?)?;
        given.add(grant::SECRET, secret.file()?.as_fd())?;
        for (name, descriptor) in datapath.descriptors()?.named_without_bpf() {
            given.add(&name, descriptor)?;
        }
        if let Some(listener) = pod.register.questions(&pod.name) {
            given.add(grant::QUESTIONS, listener.as_fd())?;
        }
        let Named(names, descriptors) = given;
        let given = Given {
            descriptors: names,
            generation: generation.number(),
            holds: !raw.is_empty(),
        };
        let made = Self {
            datapath,
            former,
            is_active: false,
            before: None,
        };
        Ok((made, (given, descriptors)))
    }

    pub(super) fn steer(&self, shard: u32, names: &[String], listeners: &[OwnedFd]) -> anyhow::Result<()> {
        let named: Vec<_> = names.iter().zip(listeners).collect();
        let of = |name: &str| -> Option<BorrowedFd<'_>> {
            named.iter().find(|(of, _)| *of == name).map(|(_, fd)| fd.as_fd())
        };
        let [inbound, outbound, hbone] = grant::STEERED.map(of);
        let steered = Steered {
            inbound,
            outbound,
            hbone,
        };
        Ok(self.datapath.session().steer(shard, steered)?)
    }

    pub(super) fn activate(&mut self, pod: &Pod) -> anyhow::Result<()> {
        let _turn = pod.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // As the sidecar before has left them.
        let routes = self.datapath.session().routes()?;
        let in_force = match self.former {
            Former::Serving(_) => InForce::of(&pod.pins),
            Former::Gone => None,
        };
        let before = self.before.insert(Before {
            in_force,
            routes,
            cleared: None,
        });
        self.datapath.activate()?;
        // A sidecar cannot ask for the keys of a map, so it would never remove what one before it has written. Until the settings
        // say that not all routes are known, a destination without one is unreachable: so not before.
        before.cleared = Some(before.routes.clear()?);
        self.is_active = true;
        Ok(())
    }

    /// Of a sidecar that is active, and whose interception policy is in force.
    pub(super) fn settle(&self, sidecar: &Path, destroy: bool) -> anyhow::Result<Settled> {
        ensure!(self.is_active, "it says its words in another order");
        let existing = match destroy {
            true => Existing::Destroy,
            false => Existing::Keep,
        };
        let session = self.datapath.session();
        // The sidecar has written its policy since.
        session.takes_over();
        let own = Own::Cgroup(sidecar);
        Ok(existing::settle(session, self.datapath.is_first(), own, existing))
    }

    /// Whose programs run beside those of the pod.
    pub(super) fn foreign(&self) -> Vec<Foreign> {
        let neighbours = self.datapath.neighbours().ask();
        neighbours.map_or_else(|_| Vec::new(), |neighbours| neighbours.foreign)
    }

    pub(super) fn is_active(&self) -> bool {
        self.is_active
    }

    /// Whether another sidecar serves until this one has the pod.
    pub(super) fn succeeds(&self) -> bool {
        matches!(self.former, Former::Serving(_))
    }

    /// The handle that detaches what the sidecar before needs for itself until it has ended. `None`: that is nothing.
    pub(super) fn formers(&self) -> Option<Handover> {
        let handover = self.datapath.is_apart().then(|| self.datapath.handover())?;
        // The lease is the sidecar's.
        handover.leave();
        Some(handover)
    }

    /// The sidecar before has given the pod up.
    pub(super) fn taken(&mut self) {
        self.before = None;
    }

    /// The sidecar has ended.
    pub(super) fn end(self, pod: &Pod) -> Ended {
        let Some(before) = self.before.filter(|_| matches!(self.former, Former::Serving(_))) else {
            return Ended::Well;
        };
        let _turn = pod.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match before.put_back(pod, self.datapath.epoch()) {
            Ok(true) => Ended::PutBack,
            Ok(false) => Ended::Lost("its maps are another version's, or a third sidecar has the pod".into()),
            Err(error) => Ended::Lost(error_chain(&error)),
        }
    }
}

impl Before {
    fn put_back(mut self, pod: &Pod, instead_of: u32) -> Result<bool, Error> {
        let Some(in_force) = self.in_force else {
            return Ok(false);
        };
        if let Some(cleared) = &self.cleared {
            // Before the settings say that these are all.
            self.routes.put_back(cleared)?;
        }
        in_force.put_back(&pod.node, &pod.target, instead_of)
    }
}

#[derive(Default)]
struct Named(Vec<String>, Vec<OwnedFd>);

impl Named {
    fn add(&mut self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.0.push(name.into());
        self.1.push(descriptor.try_clone_to_owned()?);
        Ok(())
    }
}
