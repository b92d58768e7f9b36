//! What a sidecar is given, and the steps by which it comes into force. Does not ask who gets it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, bail, ensure};

use super::pod::Pod;
use crate::datapath::{Datapath, Error, Former, Generation, Lease, RouteMap, Secret, Steered};
use crate::grant::{self, Ask, Given};
use crate::intercept::RawSockets;

/// A session that a sidecar has asked for. Dropping it takes nothing away from whoever has it.
pub(super) struct Offered {
    datapath: Datapath,
    /// As the sidecar before has left them.
    routes: RouteMap,
    is_active: bool,
}

impl Offered {
    /// Prepares everything; nothing changes for connections yet.
    pub(super) fn new(pod: &Pod, ask: &Ask) -> anyhow::Result<(Self, Given, Vec<OwnedFd>)> {
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
        let lease = match Lease::take(&pod.pins) {
            Err(Error::Owned { .. }) => bail!("{}; stop that sidecar first", pod.owner()),
            taken => taken?,
        };
        let handed = lease.descriptor()?;
        let config = pod.config(ask);
        let mut datapath =
            Datapath::prepare_on(Some(&pod.node), &config, pod.target.clone(), lease, Former::Gone)?;
        let open = || (0..ask.shards).map(|_| RawSockets::open()).collect();
        let raw: io::Result<Vec<RawSockets>> = pod.target.netns().within(open)?;
        let raw = raw.unwrap_or_else(|error| {
            tracing::warn!(pod = pod.name, %error, "connect() is optimistic; grant the agent CAP_NET_RAW for truthful answers");
            Vec::new()
        });
        datapath.session().set_hold(!raw.is_empty())?;
        let mut routes = datapath.session().routes()?;
        routes.complete(false)?;

        let generation: Generation = datapath.generation().context("no slots")?;
        let mut given = Named::default();
        given.add(grant::LEASE, handed.as_fd())?;
        given.add(grant::SLOTS, generation.descriptor()?.as_fd())?;
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
            routes,
            is_active: false,
        };
        Ok((made, given, descriptors))
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

    pub(super) fn activate(&mut self) -> anyhow::Result<()> {
        self.datapath.activate()?;
        // A sidecar cannot ask for the keys of a map, so it would never remove what one before it has written. Until the settings
        // say that not all routes are known, a destination without one is unreachable: so not before.
        self.routes.set(&BTreeMap::new())?;
        self.is_active = true;
        Ok(())
    }

    pub(super) fn is_active(&self) -> bool {
        self.is_active
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
