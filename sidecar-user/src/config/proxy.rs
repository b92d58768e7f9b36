//! The configuration of `outrigger proxy`: what a user writes becomes each room's `Config`. The table of settings is
//! `proxy/settings.rs`, what a value may be `values.rs`.

mod settings;
mod stop;
mod svid;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::host;
use super::layers::{Layers, or};
use super::values::{absolute, address, admin, admin_socket, duration, non_empty, path, port, word, workers};
use crate::existing::Existing;
use crate::grant::Door;
use crate::{budget, datapath, discovery, identity, intercept, observe, policy, proxy, route};

pub use settings::SETTINGS;
use svid::AGENT;

/// Each thread of the data path has its own listeners, and its own tunnels to each peer: on a node of 64 cores, 64 of each
/// for every pod. One that needs more than two cores says so.
const DEFAULT_WORKERS: usize = 2;

/// Where a proxy of its own file system, as in a container, takes changes.
const ADMIN_SOCKET: &str = "/run/outrigger/admin.sock";

/// `here` answers the addresses of a network namespace, by default this one, asked only when none are given.
pub(super) fn read(
    layers: &Layers,
    here: impl FnOnce(Option<&Path>) -> io::Result<Vec<IpAddr>>,
) -> Option<proxy::Config> {
    let name = layers.require("workload.name", non_empty);
    let node = or(layers, "workload.node", String::new(), |path| {
        layers.read(path, non_empty)
    });
    let mode = read_mode(layers);
    let unknown = or(layers, "outbound", route::Unknown::default(), |path| {
        let words = [
            ("passthrough", route::Unknown::PassThrough),
            ("registry-only", route::Unknown::Refuse),
        ];
        layers.read(path, word(&words))
    });
    let registry = read_registry(layers);
    let identity = svid::read(layers);
    let ports = read_ports(layers);
    let observe = read_observe(layers);
    let workers = read_workers(layers);
    let stop = stop::read(layers);
    let half_closed = or(layers, "halfClosed", Duration::from_secs(60 * 60), |path| {
        layers.read(path, duration)
    });
    let buffer_memory = or(layers, "bufferMemory", None, |path| {
        layers.read(path, super::values::memory).map(Some)
    });
    let interception = read_interception(layers);
    let addresses = read_addresses(layers, &interception, here);
    let interception_policy = read_policy(layers);
    let existing = read_existing(layers);
    let takeover = read_takeover(layers);
    let (ports, observe) = (ports?, observe?);
    check_distinct(layers, &ports, &observe);
    let (addresses, mode, workers) = (addresses?, mode?, workers?);
    Some(proxy::Config {
        name: name?,
        node: node?,
        agent: interception
            .as_ref()?
            .as_ref()
            .and_then(|target| target.agent.clone()),
        datapath: interception?
            .map(|target| kernel(target, ports, observe.status_port, workers, &addresses, mode)),
        existing: existing?,
        interception_policy: interception_policy?,
        takeover: takeover?,
        addresses,
        mode,
        unknown: unknown?,
        intercept: ports,
        discovery: registry?,
        identity: identity?,
        observe,
        buffer_memory: buffer_memory?.unwrap_or_else(budget::default_total),
        workers,
        stop: stop?,
        half_closed: half_closed?,
    })
}

/// A file, or the word for the agent of this node. A file of that name is written `./agent`.
fn read_registry(layers: &Layers) -> Option<discovery::Source> {
    let is_agents = layers.require("registry", |value| Ok(value == identity::AGENT))?;
    if !is_agents {
        let file = layers.require("registry", path)?;
        return Some(discovery::Source::File(discovery::Config { file }));
    }
    if !layers.is_given(AGENT) {
        layers.problem(
            "registry",
            "it is the agent, and interception.agent is missing, where that one is asked".into(),
            "set interception.agent, or name a file",
        );
        return None;
    }
    Some(discovery::Source::Agent)
}

fn read_takeover(layers: &Layers) -> Option<proxy::Takeover> {
    let words = [
        ("allow", proxy::Takeover::Allow),
        ("refuse", proxy::Takeover::Refuse),
    ];
    or(
        layers,
        "interception.takeover",
        proxy::Takeover::default(),
        |path| layers.read(path, word(&words)),
    )
}

/// What of it the kernel side alone needs, so that it can be attached before there is anything else: the other fields may
/// be missing.
pub(super) fn read_kernel(
    layers: &Layers,
    here: impl FnOnce(Option<&Path>) -> io::Result<Vec<IpAddr>>,
) -> Option<(datapath::Config, Option<PathBuf>, Existing)> {
    let mode = read_mode(layers);
    let (ports, observe) = (read_ports(layers), read_observe(layers));
    let (interception, workers) = (read_interception(layers), read_workers(layers));
    let addresses = read_addresses(layers, &interception, here);
    let (policy, existing) = (read_policy(layers), read_existing(layers));
    let (ports, observe) = (ports?, observe?);
    check_distinct(layers, &ports, &observe);
    let Some(target) = interception?.filter(|target| target.agent.is_none()) else {
        layers.problem(
            "interception",
            "it is `none` or an agent's, so there is nothing to attach".into(),
            "set interception.cgroup and interception.pins",
        );
        return None;
    };
    Some((
        kernel(target, ports, observe.status_port, workers?, &addresses?, mode?),
        policy?,
        existing?,
    ))
}

/// The fields of the section.
struct Target {
    /// Whoever installs it, in the place of this process: then the next three are empty.
    agent: Option<Door>,
    cgroup: PathBuf,
    netns: Option<PathBuf>,
    pins: PathBuf,
    allow_whole_host: bool,
}

fn kernel(
    target: Target,
    ports: intercept::Config,
    status_port: u16,
    shards: usize,
    addresses: &[IpAddr],
    mode: policy::Mode,
) -> datapath::Config {
    datapath::Config {
        cgroup: target.cgroup,
        netns: target.netns,
        pins: target.pins,
        allow_whole_host: target.allow_whole_host,
        hbone_port: ports.hbone_port,
        shards,
        open_ports: vec![ports.hbone_port, status_port],
        pod_addresses: addresses.to_vec(),
        strict: mode == policy::Mode::Strict,
        policy: datapath::Policy::default(),
    }
}

/// Shards of the data path.
fn read_workers(layers: &Layers) -> Option<usize> {
    let workers = or(layers, "workers", 0, |path| layers.read(path, workers))?;
    Some(match workers {
        0 => default_workers(host::cores()),
        workers => workers,
    })
}

fn read_mode(layers: &Layers) -> Option<policy::Mode> {
    let modes = [
        ("permissive", policy::Mode::Permissive),
        ("strict", policy::Mode::Strict),
    ];
    or(layers, "mode", policy::Mode::default(), |path| {
        layers.read(path, word(&modes))
    })
}

/// Its path, if there is one.
fn read_policy(layers: &Layers) -> Option<Option<PathBuf>> {
    or(layers, "interception.policy", None, |path| {
        layers.read(path, super::values::path).map(Some)
    })
}

fn read_existing(layers: &Layers) -> Option<Existing> {
    let choices = [("keep", Existing::Keep), ("destroy", Existing::Destroy)];
    or(layers, "interception.existing", Existing::default(), |path| {
        layers.read(path, word(&choices))
    })
}

fn read_addresses(
    layers: &Layers,
    interception: &Option<Option<Target>>,
    here: impl FnOnce(Option<&Path>) -> io::Result<Vec<IpAddr>>,
) -> Option<Vec<IpAddr>> {
    const FIELD: &str = "workload.addresses";
    const REMEDY: &str = "write the addresses of the workload, e.g. [10.0.0.1, \"fd00::1\"]";
    if let Some(addresses) = layers.read_list(FIELD, address) {
        if addresses.is_empty() {
            layers.problem(FIELD, "no usable address is in the list".into(), REMEDY);
        }
        return Some(addresses);
    }
    let netns = match interception {
        Some(Some(target)) => target.netns.as_deref(),
        Some(None) => None,
        // It may be the namespace that is wrong.
        None => return None,
    };
    match here(netns) {
        Ok(addresses) if !addresses.is_empty() => return Some(addresses),
        Ok(_) => layers.problem(
            FIELD,
            "no interface there has an address that others can reach".into(),
            REMEDY,
        ),
        Err(error) => {
            let field = netns.map_or(FIELD, |_| NETNS);
            layers.problem(field, format!("cannot list the interfaces: {error}"), REMEDY);
        }
    }
    None
}

const NETNS: &str = "interception.netns";

fn read_ports(layers: &Layers) -> Option<intercept::Config> {
    let port = |path, default| or(layers, path, default, |path| layers.read(path, port));
    Some(intercept::Config {
        hbone_port: port("listen.hbone", 15008)?,
    })
}

fn read_observe(layers: &Layers) -> Option<observe::Config> {
    let status_port = or(layers, "listen.status", 15020, |path| layers.read(path, port));
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 15000));
    let admin = or(layers, "listen.admin", Some(default), |path| {
        layers.read(path, admin)
    });
    let default = observe::SocketPath {
        path: ADMIN_SOCKET.into(),
        is_required: false,
    };
    let admin_socket = or(layers, "listen.adminSocket", Some(default), |path| {
        layers.read(path, admin_socket)
    });
    Some(observe::Config {
        admin: admin?,
        admin_socket: admin_socket?,
        status_port: status_port?,
    })
}

/// Inner `None`: nothing is to be attached, which has to be said: a proxy that is ready and intercepts nothing would
/// leave its pod in plaintext, and nobody would notice.
fn read_interception(layers: &Layers) -> Option<Option<Target>> {
    const FIELD: &str = "interception";
    const REMEDY: &str = "set interception.cgroup and interception.pins, or write `interception: none` for a proxy that \
                          intercepts nothing";
    match (layers.is_given(FIELD), layers.has_section(FIELD)) {
        (true, false) => {
            let none = layers.read(FIELD, |text| match text {
                "none" => Ok(()),
                _ => Err((format!("`{text}` is not known here"), REMEDY.to_owned())),
            });
            none.map(|()| None)
        }
        (true, true) => {
            let what = "it is `none`, and fields of it are given too".to_owned();
            layers.problem(FIELD, what, "keep the one or the other");
            None
        }
        (false, false) => {
            layers.problem(FIELD, "it is missing".into(), REMEDY);
            None
        }
        (false, true) if layers.is_given(AGENT) => {
            let own = ["interception.cgroup", "interception.pins", NETNS];
            for field in own.into_iter().filter(|field| layers.is_given(field)) {
                let what =
                    "it is given, and interception.agent too, where the agent knows the pod".to_owned();
                layers.problem(field, what, "keep the one or the other");
            }
            let agent = layers.read(AGENT, |text| {
                text.parse().map_err(|wrong| {
                    (
                        format!("`{text}`: {wrong}"),
                        "write the agent's door, such as @outrigger/agent".to_owned(),
                    )
                })
            });
            Some(Some(Target {
                agent: Some(agent?),
                cgroup: PathBuf::new(),
                netns: None,
                pins: PathBuf::new(),
                allow_whole_host: false,
            }))
        }
        (false, true) => {
            let (cgroup, pins) = (
                layers.require("interception.cgroup", absolute),
                layers.require("interception.pins", absolute),
            );
            let allow_whole_host = or(layers, "interception.allowWholeHost", false, |path| {
                layers.read(path, word(&[("true", true), ("false", false)]))
            });
            let netns = or(layers, NETNS, None, |path| layers.read(path, absolute).map(Some));
            Some(Some(Target {
                agent: None,
                cgroup: cgroup?,
                netns: netns?,
                pins: pins?,
                allow_whole_host: allow_whole_host?,
            }))
        }
    }
}

/// Two listeners on one port would take each other's connections, or not start at all.
fn check_distinct(layers: &Layers, ports: &intercept::Config, observe: &observe::Config) {
    let all = [
        ("listen.hbone", Some(ports.hbone_port)),
        ("listen.status", Some(observe.status_port)),
        ("listen.admin", observe.admin.map(|admin| admin.port())),
    ];
    for (n, (path, port)) in all.iter().enumerate() {
        let same = all[..n].iter().find(|(_, other)| port.is_some() && other == port);
        if let (Some((other, _)), Some(port)) = (same, port) {
            layers.problem(
                path,
                format!("port {port} is the port of `{other}` too"),
                "give each a port of its own",
            );
        }
    }
}

fn default_workers(cores: usize) -> usize {
    cores.min(DEFAULT_WORKERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_of_a_large_node_has_two_workers_unless_told() {
        assert_eq!([1, 2, 64].map(default_workers), [1, 2, 2]);
    }
}
