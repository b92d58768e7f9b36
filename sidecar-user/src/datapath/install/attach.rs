//! Attaching, from nothing or over what an earlier proxy of the pod left pinned.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytemuck::Zeroable;
use sidecar_ebpf::abi::{Owner, Settings, map};

use super::super::session::{Descriptors, Hold, Objects, Secret, Session, settings};
use super::super::{Config, Error, PodTarget};
use super::installed::Installed;
use super::lease::Lease;
use super::links;
use super::node::{Node, Programs, SHARED};
use super::probes::Probes;
use super::{Ending, Former, Generation, Handover, Logs, NeighbourQuery, detach, ending, pins, whole_host};

/// The programs, attached or about to be, and the session by which they are used. Dropping it detaches nothing: see
/// `detach`.
pub struct Datapath {
    installed: Arc<Installed>,
    session: Session,
    generation: Option<Generation>,
    is_first: bool,
    logs: Option<Logs>,
    probes: Option<Probes>,
}

impl Datapath {
    /// Attaches at once: [`Self::prepare`] and [`Self::activate`] where no other proxy serves.
    pub fn attach(config: &Config, pod: PodTarget, lease: Lease) -> Result<Self, Error> {
        let datapath = Self::prepare(config, pod, lease, Former::Gone)?;
        datapath.activate()?;
        Ok(datapath)
    }

    /// Loads what is to be attached to the pod, whatever network namespace the calling thread is in. Changes nothing for
    /// connections. Blocks for as long as the kernel's verifier takes, some tens of milliseconds.
    ///
    /// The lease is of [`Config::pins`]. Nobody listens yet: see [`Session::steer`].
    pub fn prepare(config: &Config, pod: PodTarget, lease: Lease, former: Former) -> Result<Self, Error> {
        Self::prepare_on(None, config, pod, lease, former)
    }

    /// As [`Self::prepare`], with the programs that a node has loaded for all of its pods.
    pub fn prepare_on(
        node: Option<&Node>,
        config: &Config,
        pod: PodTarget,
        lease: Lease,
        former: Former,
    ) -> Result<Self, Error> {
        let settings = settings::settings(config, pod.netns())?;
        if !config.allow_whole_host {
            whole_host::refuse(&pod)?;
            pod.refuse_mixture()?;
        }
        pins::prepare(&config.pins)?;
        links::check_pins(&config.pins, &pod)?;

        let intercepted = pins::any_link(&config.pins);
        let is_closed = |settings: Settings| settings.shards == 0;
        let was_never_served = node.is_some() && pins::pinned_settings(&config.pins).is_some_and(is_closed);
        let mut prepared = prepare(config, lease, pod, settings, former, node);
        if let Ok(datapath) = &mut prepared {
            datapath.is_first = !intercepted || was_never_served;
        }
        if prepared.is_err() && !intercepted {
            // The first error is the one to tell.
            let _: Result<_, Error> = detach::remove_all(&config.pins);
        }
        prepared
    }

    /// Attaches what is prepared. Where an earlier proxy left its pins, its programs go on working until these take their
    /// place, one by one and without a gap. Where there were none, a failure leaves none.
    pub fn activate(&self) -> Result<(), Error> {
        let pins = &self.installed.pins;
        let intercepted = pins::any_link(pins);
        let activated = self.installed.activate();
        if activated.is_ok() {
            // From now on the programs decide.
            ending::reopen(self.pod())?;
        }
        if activated.is_err() && !intercepted {
            let _: Result<_, Error> = detach::remove_all(pins);
        }
        activated
    }

    /// Lets these addresses of the pod's host ask at these ports whether its containers are well, past the proxy, as
    /// [`Node::set_probe_ports`] does for the pods of a node. Changes nothing for programs of a node.
    pub fn let_probe(&self, host: &BTreeSet<IpAddr>, ports: &BTreeSet<u16>) -> Result<(), Error> {
        let Some(probes) = &self.probes else {
            return Ok(());
        };
        probes.set_host(host)?;
        probes.set_ports(self.pod().netns().cookie()?, ports)
    }

    /// The handle by which the pod is left when it ends.
    pub fn ending(&self) -> Result<Ending, Error> {
        Ending::new(self.installed.clone())
    }

    /// The handle that gives the pod to another proxy, or takes it back.
    pub fn handover(&self) -> Handover {
        Handover::new(self.installed.clone())
    }

    /// What this proxy's listeners are held by: to be dropped when they are closed, so that another may have their slots.
    pub fn generation(&mut self) -> Option<Generation> {
        self.generation.take()
    }

    /// Whether connections of the pod pass the programs of another version, or of other settings, until
    /// [`Self::activate`].
    pub fn is_apart(&self) -> bool {
        pins::are_apart(&self.installed.renewed) || self.installed.renewed.contains(map::SETTINGS)
    }

    /// Whose programs these are.
    pub fn pod(&self) -> &PodTarget {
        &self.installed.pod
    }

    /// What serving takes.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What a session of another process is made of, once these programs are attached. It has rings of its own, in the place
    /// of those that [`Self::hold`] has made.
    pub fn descriptors(&self) -> Result<Descriptors, Error> {
        self.installed.descriptors()
    }

    /// Lets a process that has this secret write what a proxy writes without bpf(2), see [`Control`](super::super::Control).
    /// To be called once the programs are attached; a proxy that is attached later takes it off. Every other setsockopt() of
    /// the pod takes longer from then on.
    pub fn control(&self, fresh: Secret) -> Result<Secret, Error> {
        self.installed.control(fresh)
    }

    /// Attaches the program of the control path, for requests with this secret and no others.
    pub fn open_control(&self, secret: &Secret) -> Result<(), Error> {
        self.installed.open_control(secret)
    }

    /// The handle that asks who else is attached.
    pub fn neighbours(&self) -> NeighbourQuery {
        NeighbourQuery::new(self.pod().clone(), self.installed.pins.clone())
    }

    /// Tells this proxy's settings from those of others.
    pub fn epoch(&self) -> u32 {
        self.installed.switches.wanted().epoch
    }

    /// Whether nothing of the pod was intercepted before, or nobody has served what was.
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// Prepares a shard for holding SYNs, as [`Session::hold`] does, with a ring that is made here.
    pub fn hold(&self, shard: u32, listener: BorrowedFd<'_>) -> Result<Hold, Error> {
        self.session.hold_by(shard, self.installed.ring(shard)?, listener)
    }

    /// The programs' log, to be run on a tokio runtime. `None` when debug level was not enabled for the target
    /// `outrigger::kernel` at the time of attaching, or when it was taken before.
    pub fn logs(&mut self) -> Option<Logs> {
        self.logs.take()
    }
}

fn prepare(
    config: &Config,
    lease: Lease,
    pod: PodTarget,
    mut settings: Settings,
    former: Former,
    node: Option<&Node>,
) -> Result<Datapath, Error> {
    let pins: &Path = &config.pins;
    // Those that the pods of a node share are pinned at the node's.
    let elsewhere: &[&str] = if node.is_some() { &SHARED } else { &[] };
    let mut renewed = pins::to_renew(pins, &settings, former, elsewhere);
    renewed.retain(|name| !elsewhere.contains(name));
    let in_force = pins::pinned_settings(pins).unwrap_or_else(Settings::zeroed);
    let generation = Generation::take(pins, &in_force)?;
    let (number, first_shard) = (generation.number(), generation.first_shard());
    settings.first_shard = first_shard as u16;
    if !renewed.contains(map::SETTINGS) {
        // What an earlier proxy knew of its pod stays in force until this one knows it itself: until then a connection
        // would be let in unheld, and a closed port look open.
        settings::carry_over(&in_force, &mut settings);
    }
    // An upgrade that has changed their maps has lost them: a port that is served would be refused.
    if renewed.contains(map::APP_PORTS) || renewed.contains(map::INHERITED) {
        settings.app_ports = 0;
    }
    let owner = |pod| Owner {
        pod,
        first_shard,
        shards: settings.shards.into(),
    };
    let Programs {
        number: pod_number,
        numbers,
        hooks,
        control,
        used,
        shared,
        own,
        logs,
        probes,
    } = match node {
        Some(node) => node.load_for(settings.netns, (pins, &renewed), owner)?,
        None => Programs::alone(pins, &renewed, owner(0))?,
    };
    if node.is_none() {
        // No other program looks there. The filter of a listener is asked as soon as the settings count, which is before these
        // programs are attached: it would drop a SYN without a word. Of a node's programs some run already, see `admit`.
        numbers.admit(pod_number, settings.netns, &own)?;
    }
    let maps: Vec<_> = own.iter().chain(&shared).cloned().collect();
    let objects = Objects {
        maps: maps.clone(),
        programs: used.clone(),
        rings: Vec::new(),
    };
    let session = Session::prepared(pod.clone(), objects, settings, &config.policy)?;
    let keeps_policy = node.is_some() && !renewed.contains(map::POLICY);
    Ok(Datapath {
        generation: Some(generation),
        is_first: false,
        logs,
        probes,
        installed: Arc::new(Installed {
            pins: pins.into(),
            pod,
            number: pod_number,
            numbers,
            own: own.clone(),
            programs: hooks,
            control,
            pinned: if node.is_some() { own } else { maps.clone() },
            maps,
            used,
            renewed,
            former,
            generation: number,
            switches: session.switches().clone(),
            policy: session.policy(),
            keeps_policy,
            lease: Mutex::new(Some(lease)),
        }),
        session,
    })
}
