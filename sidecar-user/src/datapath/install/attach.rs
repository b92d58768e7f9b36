//! Attaching, from nothing or over what an earlier proxy of the pod left pinned.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use bytemuck::Zeroable;
use sidecar_ebpf::abi::{Counter, Listener, RING_BYTES, Settings, map, program};

use super::super::map::{Map, ring};
use super::super::session::app_ports::{AppPortMaps, Doubts};
use super::super::session::settings::{self, Switches};
use super::super::session::{AppPorts, Approvals, Bypass, Explain, Hold, PolicyMap, Proof, RouteMap};
use super::super::{Config, Error, PodTarget, sys};
use super::installed::{self, Installed};
use super::lease::Lease;
use super::links::{self, HOOKS};
use super::object::{Features, Owner};
use super::{Former, Generation, Handover, Logs, detach, logs, object, pins, whole_host};

/// The programs, attached or about to be. Dropping it detaches nothing: see `detach`.
pub struct Datapath {
    installed: Arc<Installed>,
    generation: Option<Generation>,
    first_shard: u32,
    pins: PathBuf,
    is_first: bool,
    netns: u64,
    filter: OwnedFd,
    counters: Arc<PerCpuArray<MapData, u64>>,
    doubts: Arc<Doubts>,
    bypass: Bypass,
    explain: Explain,
    logs: Option<Logs>,
}

/// The listeners of a shard, which `sk_lookup` brings connections to. Each is a TCP socket of the pod's network namespace
/// that listens already (the kernel takes no other), bound to [`LISTENERS`](super::super::LISTENERS) or to the HBONE port.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steered<'a> {
    /// For plaintext connections from outside.
    pub inbound: Option<BorrowedFd<'a>>,
    /// For the pod's own connections.
    pub outbound: Option<BorrowedFd<'a>>,
    /// For mesh peers.
    pub hbone: Option<BorrowedFd<'a>>,
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
    /// The lease is of [`Config::pins`]. Nobody listens yet: see [`Self::steer`].
    pub fn prepare(config: &Config, pod: PodTarget, lease: Lease, former: Former) -> Result<Self, Error> {
        let settings = settings::settings(config, pod.netns())?;
        if !config.allow_whole_host {
            whole_host::refuse(&pod)?;
            pod.refuse_mixture()?;
        }
        pins::prepare(&config.pins)?;
        links::check_pins(&config.pins, &pod)?;

        let intercepted = pins::any_link(&config.pins);
        let mut prepared = prepare(config, lease, pod, settings, former);
        if let Ok(datapath) = &mut prepared {
            datapath.is_first = !intercepted;
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
        if activated.is_err() && !intercepted {
            let _: Result<_, Error> = detach::remove_all(pins);
        }
        activated
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

    /// Fills the slots of a shard, which is given its part of the connections while this proxy serves the pod.
    pub fn steer(&self, shard: u32, listeners: Steered<'_>) -> Result<(), Error> {
        let given = [
            (Listener::Inbound, listeners.inbound),
            (Listener::Outbound, listeners.outbound),
            (Listener::Hbone, listeners.hbone),
        ];
        let slots: Map<u32, RawFd> = self.installed.map(map::LISTENERS)?;
        for (of, listener) in given {
            if let Some(listener) = listener {
                slots.set(&of.slot(self.first_shard + shard), &listener.as_raw_fd())?;
            }
        }
        Ok(())
    }

    /// Whose programs these are.
    pub fn pod(&self) -> &PodTarget {
        &self.installed.pod
    }

    /// The handle that lets the proxy's own connections out.
    pub fn bypass(&self) -> Bypass {
        self.bypass.clone()
    }

    /// The handle that proves that the programs see this process's sockets.
    pub fn proof(&self) -> Proof {
        Proof::new(self.bypass(), self.pod().clone(), self.pins.clone())
    }

    /// Whether nothing of the pod was intercepted before.
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// The handle that changes what is intercepted.
    pub fn policy(&self) -> PolicyMap {
        self.installed.policy.clone()
    }

    /// The handle that says what the programs would do.
    pub fn explain(&self) -> Explain {
        self.explain.clone()
    }

    /// Turns strict mode on or off for connections to come.
    pub fn set_strict(&self, strict: bool) -> Result<(), Error> {
        self.installed
            .switches
            .change(|settings| settings.strict = strict.into())
    }

    /// Prepares a shard for holding SYNs: its own ring, and the filter on its outbound listener. SYNs are held from
    /// [`Self::set_hold`] on, so that no shard waits for another.
    pub fn hold(&self, shard: u32, listener: BorrowedFd<'_>) -> Result<Hold, Error> {
        let rings: Map<u32, RawFd> = self.installed.map(map::RINGS)?;
        let approvals = Approvals {
            approved: self.installed.map(map::APPROVED)?,
            held: self.installed.map(map::HELD)?,
            netns: self.netns,
        };
        let prepare = || {
            let ring = ring(RING_BYTES as u32)?;
            rings.set(&(self.first_shard + shard), &ring.as_raw_fd())?;
            sys::attach_filter(listener, self.filter.as_fd())?;
            Hold::new(ring, approvals)
        };
        prepare().map_err(|source| Error::Hold { shard, source })
    }

    /// Turns the holding of SYNs on or off for connections to come.
    pub fn set_hold(&self, hold: bool) -> Result<(), Error> {
        self.installed
            .switches
            .change(|settings| settings.hold = hold.into())
    }

    /// The handle that tells the programs which ports listen; one is enough.
    pub fn app_ports(&self) -> Result<AppPorts, Error> {
        AppPorts::new(
            AppPortMaps {
                ports: self.installed.map(map::APP_PORTS)?,
                counted: self.installed.map(map::APP_SOCKETS)?,
                inherited: self.installed.map(map::INHERITED)?,
                counters: self.counters.clone(),
            },
            self.doubts.clone(),
            self.installed.switches.clone(),
            self.pod().cgroup_path().into(),
        )
    }

    /// The handle that tells the programs how this host reaches its destinations; one is enough.
    pub fn routes(&self) -> Result<RouteMap, Error> {
        RouteMap::new(self.installed.map(map::ROUTES)?, self.installed.switches.clone())
    }

    /// What the programs have counted since the pod was first attached, by name.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, Error> {
        Counter::ALL
            .iter()
            .map(|(counter, name)| {
                let by_cpu = self
                    .counters
                    .get(&(*counter as u32), 0)
                    .map_err(|source| Error::Map {
                        map: map::COUNTERS,
                        source,
                    })?;
                Ok((*name, by_cpu.iter().sum()))
            })
            .collect()
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
) -> Result<Datapath, Error> {
    let pins: &Path = &config.pins;
    let renewed = pins::to_renew(pins, &settings, former);
    let log = logs::enabled();
    let features = Features::probe();
    for [feature, consequence, remedy] in features.absent() {
        tracing::warn!(feature, "{consequence}; {remedy}");
    }
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
    let owner = Owner {
        first_shard,
        shards: settings.shards.into(),
    };
    let reused: Vec<_> = map::ALL
        .into_iter()
        .filter(|name| !renewed.contains(name))
        .map(|name| (name, pins::map(pins, name)))
        .collect();
    let mut ebpf = object::load(features, owner, &reused, log)?;
    let logs = log.then(|| Logs::take(&mut ebpf).ok()).flatten();
    links::load_all(&mut ebpf)?;

    let maps = map::ALL.map(|name| map_fd(&ebpf, name).map(|fd| (name, Arc::new(fd))));
    let maps = maps.into_iter().collect::<Result<Vec<_>, Error>>()?;
    let counters = counters(&mut ebpf)?;
    let switches = Switches::new(installed::another(&maps, map::SETTINGS)?, settings);
    let policy = installed::another(&maps, map::POLICY)?;
    let policy = PolicyMap::new(policy, switches.clone(), &config.policy);
    let ports = |name| installed::another(&maps, name);
    let explain = Explain::new(
        switches.clone(),
        policy.clone(),
        installed::another(&maps, map::ROUTES)?,
        [ports(map::APP_PORTS)?, ports(map::INHERITED)?],
    );
    let doubts = Arc::<Doubts>::default();
    let bypass = Bypass::new(
        switches.clone(),
        installed::another(&maps, map::BYPASS)?,
        [ports(map::APP_PORTS)?, ports(map::INHERITED)?],
        doubts.clone(),
    );
    let programs = HOOKS.map(|hook| links::program(&mut ebpf, hook.program).map(|fd| (hook, fd)));
    let programs = programs.into_iter().collect::<Result<_, Error>>()?;
    Ok(Datapath {
        generation: Some(generation),
        first_shard,
        pins: config.pins.clone(),
        is_first: false,
        netns: settings.netns,
        filter: links::program(&mut ebpf, program::HOLD)?,
        counters: Arc::new(counters),
        doubts,
        bypass,
        explain,
        logs,
        installed: Arc::new(Installed {
            pins: pins.into(),
            pod,
            programs,
            maps,
            renewed,
            former,
            generation: number,
            switches,
            policy,
            lease: Mutex::new(Some(lease)),
        }),
    })
}

fn counters(ebpf: &mut Ebpf) -> Result<PerCpuArray<MapData, u64>, Error> {
    let counters = ebpf.take_map(map::COUNTERS).ok_or(Error::Missing {
        kind: "map",
        name: map::COUNTERS,
    })?;
    PerCpuArray::try_from(counters).map_err(|source| Error::Map {
        map: map::COUNTERS,
        source,
    })
}

/// A descriptor of its own, which outlives the loader.
fn map_fd(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, Error> {
    use aya::maps::Map as Loaded;
    let data = match ebpf.map(name) {
        Some(
            Loaded::Array(data)
            | Loaded::ArrayOfMaps(data)
            | Loaded::HashMap(data)
            | Loaded::LpmTrie(data)
            | Loaded::PerCpuArray(data)
            | Loaded::SkStorage(data)
            | Loaded::SockMap(data),
        ) => data,
        _ => return Err(Error::Missing { kind: "map", name }),
    };
    let clone: io::Result<OwnedFd> = data.fd().as_fd().try_clone_to_owned();
    clone.map_err(|source| Error::MapIo { map: name, source })
}
