//! The configuration of `outrigger proxy`: what a user writes becomes each room's `Config`. The table of settings is
//! `proxy/settings.rs`, what a value may be `values.rs`.

mod interception;
mod settings;
mod stop;
mod svid;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::host;
use super::layers::{Layers, or};
use super::values::{address, admin, admin_socket, duration, non_empty, path, port, word, workers};
use crate::existing::Existing;
use crate::{budget, datapath, discovery, identity, intercept, observe, policy, proxy, route};

use interception::{NETNS, Target, read_interception};
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
        own_pod: interception
            .as_ref()?
            .as_ref()
            .and_then(|target| target.own_pod.clone()),
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

/// A file, or the word for the agent of this node or for the control process. Files of such names are written `./agent`.
fn read_registry(layers: &Layers) -> Option<discovery::Source> {
    let is_agents = layers.require("registry", |value| Ok(value == identity::AGENT))?;
    if layers.require("registry", |value| Ok(value == CONTROL))? {
        return read_control(layers);
    }
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

/// It is asked at the authority's URL, by the same roots and token.
fn read_control(layers: &Layers) -> Option<discovery::Source> {
    let authority = layers.is_given("identity.authority");
    let is_url = authority && layers.require("identity.authority", |url| Ok(url != identity::AGENT))?;
    if !is_url {
        layers.problem(
            "registry",
            "it is control, and identity.authority names no URL of it".into(),
            "write https://host:port there, or name a file here",
        );
        return None;
    }
    Some(discovery::Source::Control)
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
    let Some(target) = interception?.filter(|target| target.agent.is_none() && target.own_pod.is_none())
    else {
        layers.problem(
            "interception",
            "it is `none`, an agent's or a pod's, so there is nothing to attach".into(),
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

/// The word for the control process.
const CONTROL: &str = "control";

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
