//! The configuration of `outrigger proxy`: what a user writes becomes each room's `Config`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use super::layers::{Layers, Setting};
use super::{host, logging};
use crate::discovery::document::nearest;
use crate::model::SpiffeId;
use crate::model::identity::check_trust_domain;
use crate::{datapath, discovery, identity, intercept, observe, policy, proxy, route};

pub const SETTINGS: [Setting; 26] = [
    Setting {
        path: "workload.name",
        flag: "name",
        env: "OUTRIGGER_NAME",
        value: "NAME",
        help: "Name of the workload that this proxy serves",
        list: false,
    },
    Setting {
        path: "workload.namespace",
        flag: "namespace",
        env: "OUTRIGGER_NAMESPACE",
        value: "NAMESPACE",
        help: "Its namespace [default: default]",
        list: false,
    },
    Setting {
        path: "workload.serviceAccount",
        flag: "service-account",
        env: "OUTRIGGER_SERVICE_ACCOUNT",
        value: "NAME",
        help: "Its service account [default: default]",
        list: false,
    },
    Setting {
        path: "workload.trustDomain",
        flag: "trust-domain",
        env: "OUTRIGGER_TRUST_DOMAIN",
        value: "NAME",
        help: "Its trust domain [default: cluster.local]",
        list: false,
    },
    Setting {
        path: "workload.addresses",
        flag: "addresses",
        env: "OUTRIGGER_ADDRESSES",
        value: "IPS",
        help: "Its addresses, by commas [default: those of this network namespace's interfaces]",
        list: true,
    },
    Setting {
        path: "mode",
        flag: "mode",
        env: "OUTRIGGER_MODE",
        value: "MODE",
        help: "Plaintext from outside the mesh: permissive lets it in, strict does not [default: permissive]",
        list: false,
    },
    Setting {
        path: "outbound",
        flag: "outbound",
        env: "OUTRIGGER_OUTBOUND",
        value: "POLICY",
        help: "Unknown destinations: passthrough or registry-only [default: passthrough]",
        list: false,
    },
    Setting {
        path: "registry",
        flag: "registry",
        env: "OUTRIGGER_REGISTRY",
        value: "FILE",
        help: "The registry of services and workloads",
        list: false,
    },
    Setting {
        path: "identity.authority",
        flag: "authority",
        env: "OUTRIGGER_AUTHORITY",
        value: "URL",
        help: "The certificate service, such as https://10.99.0.1:15012",
        list: false,
    },
    Setting {
        path: "identity.serverName",
        flag: "authority-name",
        env: "OUTRIGGER_AUTHORITY_NAME",
        value: "NAME",
        help: "The name in its certificate [default: the host of the authority]",
        list: false,
    },
    Setting {
        path: "identity.roots",
        flag: "authority-roots",
        env: "OUTRIGGER_AUTHORITY_ROOTS",
        value: "FILE",
        help: "PEM bundle that its certificate chains to",
        list: false,
    },
    Setting {
        path: "identity.token",
        flag: "token",
        env: "OUTRIGGER_TOKEN_FILE",
        value: "FILE",
        help: "File with the bootstrap token, read on every call",
        list: false,
    },
    Setting {
        path: "identity.ttl",
        flag: "ttl",
        env: "OUTRIGGER_TTL",
        value: "DURATION",
        help: "The life asked for each certificate [default: 24h]",
        list: false,
    },
    Setting {
        path: "interception.cgroup",
        flag: "cgroup",
        env: "OUTRIGGER_CGROUP",
        value: "DIR",
        help: "The pod's cgroup2 directory. Without it and --pins nothing is attached",
        list: false,
    },
    Setting {
        path: "interception.pins",
        flag: "pins",
        env: "OUTRIGGER_PINS",
        value: "DIR",
        help: "Directory on a bpffs for pinned links and maps",
        list: false,
    },
    Setting {
        path: "listen.outbound",
        flag: "outbound-port",
        env: "OUTRIGGER_OUTBOUND_PORT",
        value: "PORT",
        help: "Port of redirected outbound connections [default: 15001]",
        list: false,
    },
    Setting {
        path: "listen.inbound",
        flag: "inbound-port",
        env: "OUTRIGGER_INBOUND_PORT",
        value: "PORT",
        help: "Port of steered inbound plaintext [default: 15006]",
        list: false,
    },
    Setting {
        path: "listen.hbone",
        flag: "hbone-port",
        env: "OUTRIGGER_HBONE_PORT",
        value: "PORT",
        help: "Port that mesh peers dial [default: 15008]",
        list: false,
    },
    Setting {
        path: "listen.status",
        flag: "status-port",
        env: "OUTRIGGER_STATUS_PORT",
        value: "PORT",
        help: "Port of the probes and /metrics [default: 15020]",
        list: false,
    },
    Setting {
        path: "listen.admin",
        flag: "admin",
        env: "OUTRIGGER_ADMIN",
        value: "ADDRESS",
        help: "Loopback address of the admin endpoint, or none [default: 127.0.0.1:15000]",
        list: false,
    },
    Setting {
        path: "listen.adminSocket",
        flag: "admin-socket",
        env: "OUTRIGGER_ADMIN_SOCKET",
        value: "PATH",
        help: "Unix socket of the admin endpoint [default: none]",
        list: false,
    },
    Setting {
        path: "workers",
        flag: "workers",
        env: "OUTRIGGER_WORKERS",
        value: "N",
        help: "Threads of the data path; 0 is one per usable core [default: 0]",
        list: false,
    },
    Setting {
        path: "drain",
        flag: "drain",
        env: "OUTRIGGER_DRAIN",
        value: "DURATION",
        help: "How long open connections may go on after SIGTERM [default: 5s]",
        list: false,
    },
    Setting {
        path: "halfClosed",
        flag: "half-closed",
        env: "OUTRIGGER_HALF_CLOSED",
        value: "DURATION",
        help: "How long a half-closed connection may stay silent [default: 1h]",
        list: false,
    },
    logging::LEVEL,
    logging::FORMAT,
];

type Verdict<T> = Result<T, (String, String)>;

/// Far beyond any machine; a larger number is a slip.
const MAX_WORKERS: usize = 1024;

/// `here` answers the addresses of this network namespace, asked only when none are given.
pub(super) fn read(layers: &Layers, here: impl FnOnce() -> io::Result<Vec<IpAddr>>) -> Option<proxy::Config> {
    let name = layers.require("workload.name", non_empty);
    let addresses = read_addresses(layers, here);
    let mode = or(layers, "mode", policy::Mode::default(), |path| {
        layers.read(
            path,
            word(&[
                ("permissive", policy::Mode::Permissive),
                ("strict", policy::Mode::Strict),
            ]),
        )
    });
    let unknown = or(layers, "outbound", route::Unknown::default(), |path| {
        let words = [
            ("passthrough", route::Unknown::PassThrough),
            ("registry-only", route::Unknown::Refuse),
        ];
        layers.read(path, word(&words))
    });
    let registry = layers.require("registry", path);
    let identity = read_identity(layers);
    let ports = read_ports(layers);
    let observe = read_observe(layers);
    let workers = or(layers, "workers", 0, |path| layers.read(path, workers));
    let drain = or(layers, "drain", Duration::from_secs(5), |path| {
        layers.read(path, duration)
    });
    let half_closed = or(layers, "halfClosed", Duration::from_secs(60 * 60), |path| {
        layers.read(path, duration)
    });
    let kernel = read_interception(layers);
    let (ports, observe) = (ports?, observe?);
    check_distinct(layers, &ports, &observe);
    let (addresses, mode) = (addresses?, mode?);
    Some(proxy::Config {
        name: name?,
        datapath: kernel?.map(|(cgroup, pins)| datapath::Config {
            cgroup,
            pins,
            outbound_port: ports.outbound_port,
            inbound_port: ports.inbound_port,
            open_ports: vec![ports.hbone_port, observe.status_port],
            pod_addresses: addresses.clone(),
            strict: mode == policy::Mode::Strict,
        }),
        addresses,
        mode,
        unknown: unknown?,
        intercept: ports,
        discovery: discovery::Config { file: registry? },
        identity: identity?,
        observe,
        workers: match workers? {
            0 => host::cores(),
            workers => workers,
        },
        drain: drain?,
        half_closed: half_closed?,
    })
}

/// The default when nobody gave a value; `None` when the value is wrong.
fn or<T>(layers: &Layers, path: &str, default: T, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    match layers.is_given(path) {
        true => read(path),
        false => Some(default),
    }
}

fn read_addresses(layers: &Layers, here: impl FnOnce() -> io::Result<Vec<IpAddr>>) -> Option<Vec<IpAddr>> {
    const FIELD: &str = "workload.addresses";
    const REMEDY: &str = "write the addresses of the workload, e.g. [10.0.0.1, \"fd00::1\"]";
    if let Some(addresses) = layers.read_list(FIELD, address) {
        if addresses.is_empty() {
            layers.problem(FIELD, "no usable address is in the list".into(), REMEDY);
        }
        return Some(addresses);
    }
    match here() {
        Ok(addresses) if !addresses.is_empty() => return Some(addresses),
        Ok(_) => layers.problem(
            FIELD,
            "no interface here has an address that others can reach".into(),
            REMEDY,
        ),
        Err(error) => layers.problem(FIELD, format!("cannot list the interfaces: {error}"), REMEDY),
    }
    None
}

fn read_identity(layers: &Layers) -> Option<identity::Config> {
    let (authority, server) = (
        layers.require("identity.authority", authority),
        or(layers, "identity.serverName", None, |path| {
            layers.read(path, server_name).map(Some)
        }),
    );
    let roots = layers.require("identity.roots", path);
    let token = layers.require("identity.token", path);
    let ttl = or(
        layers,
        "identity.ttl",
        Duration::from_secs(24 * 60 * 60),
        |path| layers.read(path, lifetime),
    );
    Some(identity::Config {
        id: read_id(layers)?,
        authority: authority?,
        server_name: server?,
        roots: roots?,
        token: token?,
        ttl: ttl?,
    })
}

fn read_id(layers: &Layers) -> Option<SpiffeId> {
    let domain = or(
        layers,
        "workload.trustDomain",
        "cluster.local".to_owned(),
        |path| layers.read(path, trust_domain),
    );
    let segment = |path| {
        or(layers, path, "default".to_owned(), |path| {
            layers.read(path, id_segment)
        })
    };
    let (namespace, account) = (segment("workload.namespace"), segment("workload.serviceAccount"));
    let (domain, namespace, account) = (domain?, namespace?, account?);
    match SpiffeId::new(&domain, &namespace, &account) {
        Ok(id) => Some(id),
        Err(error) => {
            layers.problem("workload.namespace", error.to_string(), "shorten the names");
            None
        }
    }
}

fn read_ports(layers: &Layers) -> Option<intercept::Config> {
    let port = |path, default| or(layers, path, default, |path| layers.read(path, port));
    let (outbound, inbound) = (port("listen.outbound", 15001), port("listen.inbound", 15006));
    let hbone = port("listen.hbone", 15008);
    Some(intercept::Config {
        outbound_port: outbound?,
        inbound_port: inbound?,
        hbone_port: hbone?,
    })
}

fn read_observe(layers: &Layers) -> Option<observe::Config> {
    let status_port = or(layers, "listen.status", 15020, |path| layers.read(path, port));
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 15000));
    let admin = or(layers, "listen.admin", Some(default), |path| {
        layers.read(path, admin)
    });
    let admin_socket = or(layers, "listen.adminSocket", None, |path| {
        layers.read(path, self::path).map(Some)
    });
    Some(observe::Config {
        admin: admin?,
        admin_socket: admin_socket?,
        status_port: status_port?,
    })
}

/// Inner `None`: nothing is to be attached.
fn read_interception(layers: &Layers) -> Option<Option<(PathBuf, PathBuf)>> {
    if !layers.has_section("interception") {
        return Some(None);
    }
    let (cgroup, pins) = (
        layers.require("interception.cgroup", absolute),
        layers.require("interception.pins", absolute),
    );
    Some(Some((cgroup?, pins?)))
}

/// Two listeners on one port would take each other's connections, or not start at all.
fn check_distinct(layers: &Layers, ports: &intercept::Config, observe: &observe::Config) {
    let all = [
        ("listen.outbound", Some(ports.outbound_port)),
        ("listen.inbound", Some(ports.inbound_port)),
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

/// One of a few fixed words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&str) -> Verdict<T> {
    move |text| match words.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let remedy = match nearest(text, &names) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("write {}", names.join(" or ")),
            };
            Err((format!("`{text}` is not known here"), remedy))
        }
    }
}

pub(super) fn path(text: &str) -> Verdict<PathBuf> {
    non_empty(text).map(PathBuf::from)
}

pub(super) fn trust_domain(text: &str) -> Verdict<String> {
    match check_trust_domain(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(reason) => Err((
            format!("`{text}`: {reason}"),
            "write a name such as cluster.local".into(),
        )),
    }
}

pub(super) fn server_name(text: &str) -> Verdict<String> {
    match rustls::pki_types::ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err((
            format!("`{text}` is no host name or address"),
            "write one, without scheme and port".into(),
        )),
    }
}

/// A certificate's life. Renewal needs time within it, so a second is the least.
pub(super) fn lifetime(text: &str) -> Verdict<Duration> {
    match duration(text)? {
        short if short < Duration::from_secs(1) => Err((
            format!("`{text}` is too short for a certificate"),
            "write at least 1s; 24h is usual".into(),
        )),
        life => Ok(life),
    }
}

fn duration(text: &str) -> Verdict<Duration> {
    humantime::parse_duration(text).map_err(|_| {
        (
            format!("`{text}` is no duration"),
            "write a number with its unit: 500ms, 5s, 24h".to_owned(),
        )
    })
}

fn absolute(text: &str) -> Verdict<PathBuf> {
    let path = path(text)?;
    match path.is_absolute() {
        true => Ok(path),
        false => Err((
            format!("`{text}` is not an absolute path"),
            "begin it with /".into(),
        )),
    }
}

fn non_empty(text: &str) -> Verdict<String> {
    match text.trim() {
        "" => Err((
            "the value is empty".into(),
            "write one, or remove the field".into(),
        )),
        _ => Ok(text.to_owned()),
    }
}

fn id_segment(text: &str) -> Verdict<String> {
    match SpiffeId::new("td", text, "sa") {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err((
            format!("`{text}`: {}", error.reason),
            "write a name such as default".into(),
        )),
    }
}

fn address(text: &str) -> Verdict<IpAddr> {
    match text.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => Ok(ip),
        _ => Err((
            format!("`{text}` is not the address of a host"),
            "write one such as 10.0.0.1 or fd00::1".into(),
        )),
    }
}

fn port(text: &str) -> Verdict<u16> {
    match text.parse::<NonZeroU16>() {
        Ok(port) => Ok(port.get()),
        Err(_) => Err((
            format!("`{text}` is no port"),
            "write a number from 1 to 65535".into(),
        )),
    }
}

/// The admin endpoint shows every flow and asks nobody who they are, so it never leaves the pod.
fn admin(text: &str) -> Verdict<Option<SocketAddr>> {
    let remedy = || "write a loopback address and a port such as 127.0.0.1:15000, or none".to_owned();
    match text.parse::<SocketAddr>() {
        _ if text == "none" => Ok(None),
        Ok(address) if !address.ip().to_canonical().is_loopback() => {
            Err((format!("`{text}` can be reached from outside"), remedy()))
        }
        Ok(address) if address.port() == 0 => Err((format!("`{text}` has no port"), remedy())),
        Ok(address) => Ok(Some(address)),
        Err(_) => Err((format!("`{text}` is no socket address"), remedy())),
    }
}

fn workers(text: &str) -> Verdict<usize> {
    match text.parse() {
        Ok(workers) if workers <= MAX_WORKERS => Ok(workers),
        _ => Err((
            format!("`{text}` is no number of threads"),
            "write 0 to 1024; 0 is one per core".into(),
        )),
    }
}

/// `https://host` or `https://host:port`, with nothing behind.
fn authority(text: &str) -> Verdict<String> {
    let remedy = || "write https://host:port, such as https://10.99.0.1:15012".to_owned();
    let error = |what: &str| Err((format!("`{text}` {what}"), remedy()));
    let Ok(uri) = text.parse::<http::Uri>() else {
        return error("is no URL");
    };
    match uri.authority() {
        _ if uri.scheme_str() != Some("https") => error("does not begin with https://"),
        None => error("names no host"),
        Some(authority) if authority.as_str().contains('@') => error("names a user"),
        Some(authority)
            if authority.port().is_some() && authority.port_u16().is_none_or(|port| port == 0) =>
        {
            error("has no valid port")
        }
        Some(_) if uri.path() != "/" || uri.query().is_some() => error("has a path"),
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
    }
}
