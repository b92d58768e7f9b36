//! SERVING: what a proxy needs of the kernel while it serves a pod whose programs are attached. Made of [`Descriptors`] alone:
//! no pin, no path below the pins directory, no loader. So whoever has installed the programs may hand a session to a process
//! that could not have. Imports nothing of `install/`, and attaches, loads and pins nothing.
//!
//! What it asks of the kernel, and what that takes:
//!
//! - mmap(2) of the rings, the settings, the ports and the counters, and epoll(7) of a ring, take nothing: whatever is read while
//!   connections come is read without bpf(2).
//! - bpf(2), each by a descriptor, for what is written, and for what is not an array: `BPF_OBJ_GET_INFO_BY_FD` once for each
//!   map that is not mapped alone, `BPF_MAP_LOOKUP_ELEM`, `BPF_MAP_UPDATE_ELEM` and `BPF_MAP_DELETE_ELEM`,
//!   `BPF_MAP_GET_NEXT_KEY` for what an earlier proxy has written (routes, policies), `BPF_MAP_LOOKUP_BATCH` for the sockets
//!   that listen, `BPF_PROG_TEST_RUN` of `or_approve` for the connections that are held. Since Linux 5.19 none of them takes a
//!   capability, whatever `kernel.unprivileged_bpf_disabled` says. On 5.17 and 5.18 all of them take CAP_BPF, unless that is 0.
//! - `setsockopt(SO_ATTACH_BPF)` on a listener of its own, and membarrier(2), take nothing.
//! - [`Proof`] binds to a device where it has CAP_NET_RAW, and does without where it has not.
//! - [`AppPorts`] reads the directories of the pod's cgroup, by the path that its descriptor has here.
//! - setns(2), with CAP_SYS_ADMIN, only from a thread of another network namespace than the pod's.
//!
//! For a process that may not call bpf(2) at all the handles write by the [`Control`] path, one `setsockopt` each.
//!
//! Not here, because they take CAP_BPF: making rings, and asking who else is attached. `install/` does both.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use sidecar_ebpf::abi::{
    APP_PORT_SLOTS, COUNTER_ROWS, COUNTER_SLOTS, INHERITED_SLOTS, Listener, Settings, map, program,
};

use super::map::Map;
use super::{Error, PodTarget, Policy, sys};
use app_ports::{AppPortMaps, Counted, Doubts};
use bypass::Marks;
use counters::Counters;
use mapped::Writable;
use port_maps::PortMaps;
use settings::Switches;
use stages::Stages;
use table::{Operations, Table};

mod app_ports;
mod bypass;
mod control;
mod counters;
mod descriptors;
mod explain;
mod facts;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod hold;
pub(super) mod mapped;
mod memory;
mod policy;
mod port_maps;
mod proof;
pub(super) mod ring;
mod routes;
pub(super) mod settings;
mod stages;
mod table;

pub use app_ports::AppPorts;
pub use bypass::Bypass;
pub use control::{Control, Secret};
pub use descriptors::Descriptors;
pub(super) use descriptors::{Objects, PROGRAMS};
pub use explain::{Action, Connect, Explain, Verdict};
pub use facts::LeftAloneEvent;
pub use hold::{Approvals, HeldEvents, Hold};
pub use policy::PolicyMap;
pub use proof::{Dialled, Family, Lost, Proof, Unseen};
pub use routes::{RouteMap, RoutesWritten};
pub use settings::{Ownership, WriteRight};

/// The programs of a pod, as a proxy uses them: the source of all handles. Dropping it ends nothing.
pub struct Session {
    pod: PodTarget,
    /// The pod's, as the programs have it.
    netns: u64,
    /// Counted through all generations.
    first_shard: u32,
    filter: Arc<OwnedFd>,
    stages: Stages,
    rings: Vec<OwnedFd>,
    maps: Maps,
    switches: Switches,
    policy: PolicyMap,
    bypass: Bypass,
    explain: Explain,
    counters: Counters,
    doubts: Arc<Doubts>,
}

/// Those of which handles are made when they are asked for.
struct Maps {
    /// `None`: filling the slots is the installer's.
    listeners: Option<Map<u32, RawFd>>,
    routes: Table<routes::Key, sidecar_ebpf::abi::Path>,
    ports: PortMaps,
    inherited: Arc<OwnedFd>,
    counted: Counted,
}

/// The listeners of a shard, which `sk_lookup` brings connections to. Each is a TCP socket of the pod's network namespace
/// that listens already (the kernel takes no other), bound to [`LISTENERS`](super::LISTENERS) or to the HBONE port.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steered<'a> {
    /// For plaintext connections from outside.
    pub inbound: Option<BorrowedFd<'a>>,
    /// For the pod's own connections.
    pub outbound: Option<BorrowedFd<'a>>,
    /// For mesh peers.
    pub hbone: Option<BorrowedFd<'a>>,
}

impl Session {
    /// Of programs that are attached and serve: what their settings say is in force. The policy is the one that was given to
    /// whoever attached them; only [`Explain`] needs to know it.
    ///
    /// Refuses descriptors of other objects than their names say, and maps of another layout.
    pub fn new(descriptors: Descriptors, policy: &Policy) -> Result<Self, Error> {
        Self::in_force(descriptors, policy, None)
    }

    /// As [`Self::new`], for handles that write by the control path and not by bpf(2). Whoever hands over the descriptors has
    /// removed the policies and routes of earlier proxies, but for the policy in force.
    pub fn by_control(descriptors: Descriptors, policy: &Policy, control: &Control) -> Result<Self, Error> {
        Self::in_force(descriptors, policy, Some(control))
    }

    fn in_force(descriptors: Descriptors, policy: &Policy, control: Option<&Control>) -> Result<Self, Error> {
        let Descriptors {
            cgroup,
            netns,
            objects,
        } = descriptors;
        let pod = PodTarget::of_descriptors(cgroup, netns)?;
        let in_force = objects.mapped(map::SETTINGS, 1)?;
        let switches = Switches::in_force(objects.writer(control)?, in_force);
        let table = objects.table(map::POLICY, control, Operations::POLICY)?;
        let policy = PolicyMap::in_force(table, switches.clone(), policy);
        Self::of(pod, objects, switches, policy, control)
    }

    /// As [`Self::new`], before the programs are told of this process: its shards are counted from this one on. What the
    /// settings say is this process's to change once they were [taken over](Self::takes_over).
    pub fn granted(descriptors: Descriptors, first_shard: u32, control: &Control) -> Result<Self, Error> {
        let session = Self::by_control(descriptors, &Policy::default(), control)?;
        Ok(Self {
            first_shard,
            // The settings may be written only when they come into force.
            netns: session.pod.netns().cookie()?,
            ..session
        })
    }

    /// The settings in force are those of this process now.
    pub fn takes_over(&self) {
        self.switches.renew();
        self.policy.renew();
    }

    /// The handle that lets another proxy change the settings instead of this one.
    pub fn write_right(&self) -> WriteRight {
        WriteRight::new(self.switches.clone())
    }

    /// Of programs that are about to be attached: these settings are in force once they are written.
    pub(super) fn prepared(
        pod: PodTarget,
        objects: Objects,
        settings: Settings,
        policy: &Policy,
    ) -> Result<Self, Error> {
        let in_force = objects.mapped(map::SETTINGS, 1)?;
        let switches = Switches::new(objects.writer(None)?, in_force, settings);
        let table = objects.table(map::POLICY, None, Operations::POLICY)?;
        let policy = PolicyMap::new(table, switches.clone(), policy);
        Self::of(pod, objects, switches, policy, None)
    }

    fn of(
        pod: PodTarget,
        objects: Objects,
        switches: Switches,
        policy: PolicyMap,
        control: Option<&Control>,
    ) -> Result<Self, Error> {
        let maps = Maps {
            listeners: match control {
                None => Some(objects.map(map::LISTENERS)?),
                Some(_) => None,
            },
            routes: objects.table(map::ROUTES, control, Operations::ROUTES)?,
            ports: PortMaps {
                counted: objects.mapped(map::APP_PORTS, APP_PORT_SLOTS)?,
                inherited: objects.mapped(map::INHERITED, INHERITED_SLOTS)?,
            },
            inherited: objects.descriptor(map::INHERITED)?,
            counted: match control {
                None => Counted::Map(objects.map(map::APP_SOCKETS)?),
                Some(control) => Counted::Control(control.clone()),
            },
        };
        let stages = match control {
            None => Stages::Bpf {
                approve: objects.program(program::APPROVE)?,
                pending: objects.map(map::PENDING)?,
            },
            Some(control) => Stages::Control(control.clone()),
        };
        let marks = match control {
            None => Marks::Map(objects.map(map::BYPASS)?),
            Some(control) => Marks::Control(control.clone()),
        };
        let counters = Counters::new(objects.mapped(map::COUNTERS, COUNTER_ROWS * COUNTER_SLOTS)?);
        let filter = match control {
            None => objects.program(program::HOLD)?,
            Some(_) => objects.filter()?,
        };
        let rings = objects.rings()?;
        let doubts = Arc::<Doubts>::default();
        let bypass = Bypass::new(switches.clone(), marks, maps.ports.clone(), doubts.clone());
        let explain = Explain::new(
            switches.clone(),
            policy.clone(),
            maps.routes.clone(),
            maps.ports.clone(),
            control.cloned(),
        );
        let settings = switches.wanted();
        Ok(Self {
            pod,
            netns: settings.netns,
            first_shard: settings.first_shard.into(),
            filter,
            stages,
            rings,
            maps,
            switches,
            policy,
            bypass,
            explain,
            counters,
            doubts,
        })
    }

    pub fn pod(&self) -> &PodTarget {
        &self.pod
    }

    /// Fills the slots of a shard, which is given its part of the connections while this proxy serves the pod.
    pub fn steer(&self, shard: u32, listeners: Steered<'_>) -> Result<(), Error> {
        let given = [
            (Listener::Inbound, listeners.inbound),
            (Listener::Outbound, listeners.outbound),
            (Listener::Hbone, listeners.hbone),
        ];
        for (of, listener) in given {
            if let Some(listener) = listener {
                let slot = of.slot(self.first_shard + shard);
                let slots = self.maps.listeners.as_ref();
                let slots = slots.ok_or(Error::NotHandedOver {
                    name: map::LISTENERS.into(),
                })?;
                slots.set(&slot, &listener.as_raw_fd())?;
            }
        }
        Ok(())
    }

    /// Prepares a shard for holding SYNs, by the ring that was handed over for it. SYNs are held from [`Self::set_hold`] on,
    /// so that no shard waits for another.
    pub fn hold(&self, shard: u32, listener: BorrowedFd<'_>) -> Result<Hold, Error> {
        let ring = self.rings.get(shard as usize);
        let ring = ring.ok_or_else(|| io::Error::other("no ring was handed over for it"));
        let ring = ring.and_then(OwnedFd::try_clone);
        self.hold_by(
            shard,
            ring.map_err(|source| Error::Hold { shard, source })?,
            listener,
        )
    }

    /// By a ring that is in the shard's slot already: the filter is put on its outbound listener.
    pub(super) fn hold_by(&self, shard: u32, ring: OwnedFd, listener: BorrowedFd<'_>) -> Result<Hold, Error> {
        let approvals = Approvals {
            stages: self.stages.clone(),
            netns: self.netns,
            shard: self.first_shard + shard,
        };
        sys::attach_filter(listener, self.filter.as_fd())
            .and_then(|()| Hold::new(ring, approvals))
            .map_err(|source| Error::Hold { shard, source })
    }

    /// Turns the holding of SYNs on or off for connections to come.
    pub fn set_hold(&self, hold: bool) -> Result<(), Error> {
        self.switches.change(|settings| settings.hold = hold.into())
    }

    /// Turns strict mode on or off for connections to come.
    pub fn set_strict(&self, strict: bool) -> Result<(), Error> {
        self.switches.change(|settings| settings.strict = strict.into())
    }

    /// The handle that lets the proxy's own connections out.
    pub fn bypass(&self) -> Bypass {
        self.bypass.clone()
    }

    /// The handle that proves that the programs see this process's sockets.
    pub fn proof(&self) -> Proof {
        Proof::new(self.bypass(), self.pod.clone())
    }

    /// The handle that changes what is intercepted.
    pub fn policy(&self) -> PolicyMap {
        self.policy.clone()
    }

    /// The handle that says what the programs would do.
    pub fn explain(&self) -> Explain {
        self.explain.clone()
    }

    /// The handle that tells the programs which ports listen; one is enough.
    pub fn app_ports(&self) -> Result<AppPorts, Error> {
        let inherited = self.maps.inherited.as_fd();
        let maps = AppPortMaps {
            counted: self.maps.counted.clone(),
            inherited: Writable::new(map::INHERITED, inherited, INHERITED_SLOTS)?,
            counters: self.counters.clone(),
        };
        Ok(AppPorts::new(
            maps,
            self.doubts.clone(),
            self.switches.clone(),
            self.pod.cgroup_path().into(),
        ))
    }

    /// The handle that tells the programs how this host reaches its destinations; one is enough.
    pub fn routes(&self) -> Result<RouteMap, Error> {
        RouteMap::new(self.maps.routes.clone(), self.switches.clone())
    }

    /// What the programs have counted since the pod was first attached, by name.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.counters.read()
    }

    pub(super) fn switches(&self) -> &Switches {
        &self.switches
    }
}
