//! Attaching, from nothing or over what an earlier proxy of the pod left pinned.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Map, MapData, PerCpuArray};
use sidecar_ebpf::abi::{Counter, Listener, RING_BYTES, Settings, map};

use super::app_ports::{AppPortMaps, Doubts};
use super::hold::Approvals;
use super::lease::Lease;
use super::links::{self, HOOKS};
use super::object::Features;
use super::policy::{self, PolicyMap};
use super::settings::Switches;
use super::{
    AppPorts, Bypass, Config, Error, Explain, Hold, Logs, PodTarget, Proof, RouteMap, detach, logs, object,
    pins, settings, sys, whole_host,
};

/// The attached programs. Dropping it detaches nothing: see `detach`.
pub struct Datapath {
    /// No other proxy attaches while this value lives.
    _lease: Arc<Lease>,
    pod: PodTarget,
    pins: PathBuf,
    is_first: bool,
    switches: Switches,
    maps: Maps,
    filter: OwnedFd,
    counters: Arc<PerCpuArray<MapData, u64>>,
    doubts: Arc<Doubts>,
    bypass: Bypass,
    policy: PolicyMap,
    explain: Explain,
    logs: Option<Logs>,
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

/// The maps that user space writes.
struct Maps {
    approved: Arc<OwnedFd>,
    held: Arc<OwnedFd>,
    netns: u64,
    listeners: OwnedFd,
    rings: OwnedFd,
    app_ports: OwnedFd,
    app_sockets: OwnedFd,
    inherited: OwnedFd,
    routes: OwnedFd,
}

impl Datapath {
    /// Attaches to the pod, whatever network namespace the calling thread is in. Blocks for as long as the kernel's verifier
    /// takes, some tens of milliseconds.
    ///
    /// The lease is of [`Config::pins`]. Where an earlier proxy left its pins, its programs go on working until these take
    /// their place, one by one and without a gap. Where there were none, a failure leaves none.
    ///
    /// Nobody listens yet: until [`Self::steer`], and whenever the listeners are closed, what they are for is refused.
    pub fn attach(config: &Config, pod: PodTarget, lease: Lease) -> Result<Self, Error> {
        let settings = settings::settings(config, pod.netns())?;
        if !config.allow_whole_host {
            whole_host::refuse(&pod)?;
            pod.refuse_mixture()?;
        }
        pins::prepare(&config.pins)?;
        links::check_pins(&config.pins, &pod)?;

        let intercepted = pins::any_link(&config.pins);
        let lease = Arc::new(lease);
        let mut attached = attach(config, lease.clone(), pod, settings);
        if let Ok(datapath) = &mut attached {
            datapath.is_first = !intercepted;
        }
        if attached.is_err() && !intercepted {
            // The first error is the one to tell.
            let _: Result<_, Error> = detach::remove_all(&config.pins);
        }
        attached
    }

    /// Fills the slots of a shard. From now on it is given its part of the connections.
    pub fn steer(&self, shard: u32, listeners: Steered<'_>) -> Result<(), Error> {
        let given = [
            (Listener::Inbound, listeners.inbound),
            (Listener::Outbound, listeners.outbound),
            (Listener::Hbone, listeners.hbone),
        ];
        for (of, listener) in given {
            if let Some(listener) = listener {
                sys::map_set(
                    self.maps.listeners.as_fd(),
                    &of.slot(shard),
                    &listener.as_raw_fd(),
                )
                .map_err(|source| Error::MapIo {
                    map: map::LISTENERS,
                    source,
                })?;
            }
        }
        Ok(())
    }

    /// Whose programs these are.
    pub fn pod(&self) -> &PodTarget {
        &self.pod
    }

    /// The handle that lets the proxy's own connections out.
    pub fn bypass(&self) -> Bypass {
        self.bypass.clone()
    }

    /// The handle that proves that the programs see this process's sockets.
    pub fn proof(&self) -> Proof {
        Proof::new(self.bypass(), self.pod.clone(), self.pins.clone())
    }

    /// Whether nothing of the pod was intercepted before.
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// The handle that changes what is intercepted.
    pub fn policy(&self) -> PolicyMap {
        self.policy.clone()
    }

    /// The handle that says what the programs would do.
    pub fn explain(&self) -> Explain {
        self.explain.clone()
    }

    /// Turns strict mode on or off for connections to come.
    pub fn set_strict(&self, strict: bool) -> Result<(), Error> {
        self.switches.change(|settings| settings.strict = strict.into())
    }

    /// Prepares a shard for holding SYNs: its own ring, and the filter on its outbound listener. SYNs are held from
    /// [`Self::set_hold`] on, so that no shard waits for another.
    pub fn hold(&self, shard: u32, listener: BorrowedFd<'_>) -> Result<Hold, Error> {
        let prepare = || {
            let ring = sys::ring_create(RING_BYTES as u32)?;
            sys::map_set(self.maps.rings.as_fd(), &shard, &ring.as_raw_fd())?;
            sys::attach_filter(listener, self.filter.as_fd())?;
            let approvals = Approvals {
                approved: self.maps.approved.clone(),
                held: self.maps.held.clone(),
                netns: self.maps.netns,
            };
            Hold::new(ring, approvals)
        };
        prepare().map_err(|source| Error::Hold { shard, source })
    }

    /// Turns the holding of SYNs on or off for connections to come.
    pub fn set_hold(&self, hold: bool) -> Result<(), Error> {
        self.switches.change(|settings| settings.hold = hold.into())
    }

    /// The handle that tells the programs which ports listen; one is enough.
    pub fn app_ports(&self) -> Result<AppPorts, Error> {
        AppPorts::new(
            AppPortMaps {
                ports: another(&self.maps.app_ports, map::APP_PORTS)?,
                counted: another(&self.maps.app_sockets, map::APP_SOCKETS)?,
                inherited: another(&self.maps.inherited, map::INHERITED)?,
                counters: self.counters.clone(),
            },
            self.doubts.clone(),
            self.switches.clone(),
            self.pod.cgroup_path().into(),
        )
    }

    /// The handle that tells the programs how this host reaches its destinations; one is enough.
    pub fn routes(&self) -> Result<RouteMap, Error> {
        RouteMap::new(another(&self.maps.routes, map::ROUTES)?, self.switches.clone())
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

fn attach(
    config: &Config,
    lease: Arc<Lease>,
    pod: PodTarget,
    mut settings: Settings,
) -> Result<Datapath, Error> {
    let pins: &Path = &config.pins;
    pins::keep_or_forget_maps(pins, &settings)?;
    let knows_listeners = [map::APP_PORTS, map::INHERITED]
        .iter()
        .all(|name| pins::map(pins, name).exists());
    let log = logs::enabled();
    let features = Features::probe();
    for [feature, consequence, remedy] in features.absent() {
        tracing::warn!(feature, "{consequence}; {remedy}");
    }
    let mut ebpf = object::load(features, Some(&pins::maps(pins)), log)?;
    let logs = log.then(|| Logs::take(&mut ebpf).ok()).flatten();
    links::load_all(&mut ebpf)?;

    // Everything that the programs ask for is in place before the first of them runs.
    // What an earlier proxy knew of its pod stays in force until this one knows it itself: until then a connection
    // would be let in unheld, and a closed port look open.
    let before = in_force(&ebpf)?;
    settings::carry_over(&before, &mut settings);
    // An upgrade that has changed their maps has lost them: a port that is served would be refused.
    if !knows_listeners {
        settings.app_ports = 0;
    }
    let policy = policy::Written::new(map_fd(&ebpf, map::POLICY)?, &before, &config.policy)?;
    settings.policy_generation = policy.generation();
    let switches = Switches::write(map_fd(&ebpf, map::SETTINGS)?, settings)?;
    let policy = policy.into_force(switches.clone());
    let explain = Explain::new(
        switches.clone(),
        policy.clone(),
        map_fd(&ebpf, map::ROUTES)?,
        [map_fd(&ebpf, map::APP_PORTS)?, map_fd(&ebpf, map::INHERITED)?],
    );
    let maps = Maps {
        approved: Arc::new(map_fd(&ebpf, map::APPROVED)?),
        held: Arc::new(map_fd(&ebpf, map::HELD)?),
        netns: settings.netns,
        listeners: map_fd(&ebpf, map::LISTENERS)?,
        rings: map_fd(&ebpf, map::RINGS)?,
        app_ports: map_fd(&ebpf, map::APP_PORTS)?,
        app_sockets: map_fd(&ebpf, map::APP_SOCKETS)?,
        inherited: map_fd(&ebpf, map::INHERITED)?,
        routes: map_fd(&ebpf, map::ROUTES)?,
    };
    for hook in HOOKS {
        links::attach(&mut ebpf, hook, &pod, pins)?;
    }
    links::remove_others(pins)?;
    pins::forget_other_maps(pins)?;
    let doubts = Arc::<Doubts>::default();
    Ok(Datapath {
        _lease: lease,
        pod,
        pins: config.pins.clone(),
        is_first: false,
        maps,
        filter: links::hold_program(&mut ebpf)?,
        counters: Arc::new(counters(&mut ebpf)?),
        bypass: Bypass::new(
            switches.clone(),
            map_fd(&ebpf, map::BYPASS)?,
            [map_fd(&ebpf, map::APP_PORTS)?, map_fd(&ebpf, map::INHERITED)?],
            doubts.clone(),
        ),
        doubts,
        switches,
        policy,
        explain,
        logs,
    })
}

/// The settings of an earlier proxy whose maps are reused, or zeros.
fn in_force(ebpf: &Ebpf) -> Result<Settings, Error> {
    sys::map_get(map_fd(ebpf, map::SETTINGS)?.as_fd(), &0_u32).map_err(|source| Error::MapIo {
        map: map::SETTINGS,
        source,
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

/// A descriptor for a handle of its own.
fn another(map: &OwnedFd, name: &'static str) -> Result<OwnedFd, Error> {
    map.try_clone()
        .map_err(|source| Error::MapIo { map: name, source })
}

/// A descriptor of its own, which outlives the loader.
fn map_fd(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, Error> {
    let data = match ebpf.map(name) {
        Some(
            Map::Array(data)
            | Map::ArrayOfMaps(data)
            | Map::HashMap(data)
            | Map::LpmTrie(data)
            | Map::SkStorage(data)
            | Map::SockMap(data),
        ) => data,
        _ => return Err(Error::Missing { kind: "map", name }),
    };
    let clone: io::Result<OwnedFd> = data.fd().as_fd().try_clone_to_owned();
    clone.map_err(|source| Error::MapIo { map: name, source })
}
