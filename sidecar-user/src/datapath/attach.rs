//! Attaching, from nothing or over what an earlier proxy of the pod left pinned.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use bytemuck::Pod;
use sidecar_ebpf::abi::{self, AppSocket, Counter, Listener, RING_BYTES, Settings, map as names};

use super::app_ports::{AppPortMaps, Doubts, Ports};
use super::hold::Approvals;
use super::lease::Lease;
use super::links::{self, HOOKS};
use super::map::{Map, ring};
use super::object::Features;
use super::policy::{self, PolicyMap};
use super::settings::Switches;
use super::{
    AppPorts, Bypass, Config, Error, Explain, Hold, Logs, PodTarget, Proof, RouteMap, detach, logs, object,
    pins, routes, settings, sys, whole_host,
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
    approvals: Approvals,
    listeners: Map<u32, RawFd>,
    rings: Map<u32, RawFd>,
    app_ports: Ports,
    app_sockets: Map<u64, AppSocket>,
    inherited: Ports,
    routes: Map<routes::Key, abi::Path>,
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
                self.maps.listeners.set(&of.slot(shard), &listener.as_raw_fd())?;
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
            let ring = ring(RING_BYTES as u32)?;
            self.maps.rings.set(&shard, &ring.as_raw_fd())?;
            sys::attach_filter(listener, self.filter.as_fd())?;
            Hold::new(ring, self.maps.approvals.clone())
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
                ports: self.maps.app_ports.clone(),
                counted: self.maps.app_sockets.clone(),
                inherited: self.maps.inherited.clone(),
                counters: self.counters.clone(),
            },
            self.doubts.clone(),
            self.switches.clone(),
            self.pod.cgroup_path().into(),
        )
    }

    /// The handle that tells the programs how this host reaches its destinations; one is enough.
    pub fn routes(&self) -> Result<RouteMap, Error> {
        RouteMap::new(self.maps.routes.clone(), self.switches.clone())
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
                        map: names::COUNTERS,
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
    let knows_listeners = [names::APP_PORTS, names::INHERITED]
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
    let before = settings::in_force(&opened(&ebpf, names::SETTINGS)?)?;
    settings::carry_over(&before, &mut settings);
    // An upgrade that has changed their maps has lost them: a port that is served would be refused.
    if !knows_listeners {
        settings.app_ports = 0;
    }
    let policy = policy::Written::new(opened(&ebpf, names::POLICY)?, &before, &config.policy)?;
    settings.policy_generation = policy.generation();
    let switches = Switches::write(opened(&ebpf, names::SETTINGS)?, settings)?;
    let policy = policy.into_force(switches.clone());
    let explain = Explain::new(
        switches.clone(),
        policy.clone(),
        opened(&ebpf, names::ROUTES)?,
        [opened(&ebpf, names::APP_PORTS)?, opened(&ebpf, names::INHERITED)?],
    );
    let maps = Maps {
        approvals: Approvals {
            approved: opened(&ebpf, names::APPROVED)?,
            held: opened(&ebpf, names::HELD)?,
            netns: settings.netns,
        },
        listeners: opened(&ebpf, names::LISTENERS)?,
        rings: opened(&ebpf, names::RINGS)?,
        app_ports: opened(&ebpf, names::APP_PORTS)?,
        app_sockets: opened(&ebpf, names::APP_SOCKETS)?,
        inherited: opened(&ebpf, names::INHERITED)?,
        routes: opened(&ebpf, names::ROUTES)?,
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
            opened(&ebpf, names::BYPASS)?,
            [opened(&ebpf, names::APP_PORTS)?, opened(&ebpf, names::INHERITED)?],
            doubts.clone(),
        ),
        doubts,
        switches,
        policy,
        explain,
        logs,
    })
}

fn counters(ebpf: &mut Ebpf) -> Result<PerCpuArray<MapData, u64>, Error> {
    let counters = ebpf.take_map(names::COUNTERS).ok_or(Error::Missing {
        kind: "map",
        name: names::COUNTERS,
    })?;
    PerCpuArray::try_from(counters).map_err(|source| Error::Map {
        map: names::COUNTERS,
        source,
    })
}

/// By a descriptor of its own, which outlives the loader.
fn opened<K: Pod, V: Pod>(ebpf: &Ebpf, name: &'static str) -> Result<Map<K, V>, Error> {
    use aya::maps::Map as Loaded;
    let data = match ebpf.map(name) {
        Some(
            Loaded::Array(data)
            | Loaded::ArrayOfMaps(data)
            | Loaded::HashMap(data)
            | Loaded::LpmTrie(data)
            | Loaded::SkStorage(data)
            | Loaded::SockMap(data),
        ) => data,
        _ => return Err(Error::Missing { kind: "map", name }),
    };
    let clone: io::Result<OwnedFd> = data.fd().as_fd().try_clone_to_owned();
    Map::new(name, clone.map_err(|source| Error::MapIo { map: name, source })?)
}
