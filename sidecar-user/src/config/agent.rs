//! The configuration of `outrigger agent`.

use std::path::PathBuf;
use std::time::Duration;

use super::layers::{Layers, Setting, or};
use super::logging;
use super::values::{
    absolute, admin, admin_socket, authority, lifetime, memory, non_empty, path, status, trust_domain,
};
use crate::{agent, uplink};

pub const SETTINGS: [Setting; 17] = [
    Setting {
        path: "pins",
        flag: "pins",
        env: "OUTRIGGER_PINS",
        value: "DIR",
        help: "Directory on a bpffs for what is pinned of this node and of its pods; made when absent",
        list: false,
    },
    Setting {
        path: "pods",
        flag: "pods",
        env: "OUTRIGGER_PODS",
        value: "DIRS",
        help: "cgroup2 directories whose children are pods, by commas [default: those of the kubelet, which are found]",
        list: true,
    },
    Setting {
        path: "sidecar",
        flag: "sidecar",
        env: "OUTRIGGER_SIDECAR",
        value: "NAME",
        help: "The cgroup in a pod's cgroup where its sidecar runs; whoever asks from elsewhere is refused [default: outrigger]",
        list: false,
    },
    Setting {
        path: "socket",
        flag: "socket",
        env: "OUTRIGGER_AGENT_SOCKET",
        value: "PATH",
        help: "Unix socket where `outrigger install` asks for pods [default: /run/outrigger/agent.sock]",
        list: false,
    },
    Setting {
        path: "adminSocket",
        flag: "admin-socket",
        env: "OUTRIGGER_AGENT_ADMIN_SOCKET",
        value: "PATH",
        help: "Unix socket where `kubectl outrigger` asks about flows and pods, or none [default: agent-admin.sock beside `socket`]",
        list: false,
    },
    Setting {
        path: "api",
        flag: "api",
        env: "OUTRIGGER_AGENT_API",
        value: "ADDRESS:PORT",
        help: "Loopback address where `kubectl outrigger` asks over the API server, by TLS and with a token; needs `node` and `control` [default: none]",
        list: false,
    },
    Setting {
        path: "trustDomain",
        flag: "trust-domain",
        env: "OUTRIGGER_TRUST_DOMAIN",
        value: "NAME",
        help: "Of the identity by which the agent proves itself at `api` [default: cluster.local]",
        list: false,
    },
    Setting {
        path: "status",
        flag: "status",
        env: "OUTRIGGER_AGENT_STATUS",
        value: "ADDRESS",
        help: "Where metrics and probes are answered, such as [::]:15021, or none [default: none]",
        list: false,
    },
    Setting {
        path: "refresh",
        flag: "refresh",
        env: "OUTRIGGER_REFRESH",
        value: "DURATION",
        help: "The longest time until a certificate for `api` is asked for again, and so until its roots are others [default: 1h]",
        list: false,
    },
    Setting {
        path: "memory",
        flag: "memory",
        env: "OUTRIGGER_AGENT_MEMORY",
        value: "SIZE",
        help: "Memory for flows that have ended, such as 256MiB [default: 64MiB]",
        list: false,
    },
    Setting {
        path: "node",
        flag: "node",
        env: "OUTRIGGER_NODE",
        value: "NAME",
        help: "The node of Kubernetes that is served, whose API server says which pods have a sidecar [default: none, every pod is served]",
        list: false,
    },
    Setting {
        path: "apiServer",
        flag: "api-server",
        env: "OUTRIGGER_API_SERVER",
        value: "URL",
        help: "An API server that asks for no credentials, such as kubectl proxy [default: that of the pod's service account]",
        list: false,
    },
    Setting {
        path: "control.url",
        flag: "control",
        env: "OUTRIGGER_CONTROL",
        value: "URL",
        help: "The control process that the sidecars of this node reach through the agent, such as https://outrigger-control.outrigger-system.svc:15012 [default: none]",
        list: false,
    },
    Setting {
        path: "control.roots",
        flag: "control-roots",
        env: "OUTRIGGER_CONTROL_ROOTS",
        value: "FILE",
        help: "Root certificates that the control process is trusted by",
        list: false,
    },
    Setting {
        path: "control.token",
        flag: "control-token",
        env: "OUTRIGGER_CONTROL_TOKEN",
        value: "FILE",
        help: "The agent's own token for the control process",
        list: false,
    },
    logging::LEVEL,
    logging::FORMAT,
];

pub(super) fn read(layers: &Layers) -> Option<agent::Config> {
    let pins: Option<PathBuf> = layers.require("pins", absolute);
    let pods = layers.read_list("pods", absolute);
    let sidecar = match layers.is_given("sidecar") {
        true => layers.read("sidecar", |text| match text.contains('/') || text.is_empty() {
            true => Err((
                format!("`{text}` is no name of a directory"),
                "write the last part of its path, such as outrigger".to_owned(),
            )),
            false => Ok(text.to_owned()),
        }),
        false => Some("outrigger".to_owned()),
    };
    let socket = match layers.is_given("socket") {
        true => layers.read("socket", absolute),
        false => Some("/run/outrigger/agent.sock".into()),
    };
    let admin = match layers.is_given("adminSocket") {
        true => layers
            .read("adminSocket", admin_socket)
            .map(|socket| socket.map(|socket| socket.path)),
        false => socket
            .as_ref()
            .map(|socket: &PathBuf| Some(socket.with_file_name("agent-admin.sock"))),
    };
    // Whoever runs it without Kubernetes has opened no port of the host for it.
    let status = or(layers, "status", None, |path| layers.read(path, status));
    let usual = agent::memory::Limits::default();
    let bytes = or(layers, "memory", usual.bytes, |path| layers.read(path, memory));
    let node = or(layers, "node", None, |path| {
        layers.read(path, non_empty).map(Some)
    });
    let server = or(layers, "apiServer", None, |path| {
        layers.read(path, non_empty).map(Some)
    });
    if layers.is_given("apiServer") && !layers.is_given("node") {
        layers.problem(
            "apiServer",
            "it is given, and no node".into(),
            "name the node that is served in node, or leave apiServer out",
        );
    }
    let server = server?;
    let kubernetes = node?.map(|node| agent::Kubernetes { node, server });
    let control = read_control(layers);
    let api = read_api(layers, control.as_ref().and_then(Option::as_ref));
    let socket = socket?;
    Some(agent::Config {
        control: control?,
        api: api?,
        pins: pins?,
        pods: pods.unwrap_or_default(),
        sidecar: sidecar?,
        kubernetes,
        sidecars: socket.with_file_name("agent-pods"),
        socket,
        admin: admin?,
        status: status?,
        memory: agent::memory::Limits {
            bytes: bytes?,
            ..usual
        },
    })
}

/// Inner `None`: there is none.
fn read_api(layers: &Layers, control: Option<&uplink::Config>) -> Option<Option<agent::ApiConfig>> {
    let trust_domain = or(layers, "trustDomain", "cluster.local".to_owned(), |path| {
        layers.read(path, trust_domain)
    });
    let refresh = or(layers, "refresh", Duration::from_secs(60 * 60), |path| {
        layers.read(path, lifetime)
    });
    if !layers.is_given("api") {
        return Some(None);
    }
    let listen = layers.read("api", admin);
    for (needed, is_given) in [
        ("node", layers.is_given("node")),
        ("control", layers.has_section("control")),
    ] {
        if !is_given {
            layers.problem(
                "api",
                format!("it is given, and no {needed}"),
                "who asks there proves it to the API server of `node`, and the agent by a certificate of `control`: give both, or leave api out",
            );
        }
    }
    let (listen, trust_domain, refresh) = (listen?, trust_domain?, refresh?);
    let Some(listen) = listen else {
        return Some(None);
    };
    Some(Some(agent::ApiConfig {
        listen,
        trust_domain,
        refresh,
        token: control?.token.clone(),
    }))
}

/// Inner `None`: there is none.
fn read_control(layers: &Layers) -> Option<Option<uplink::Config>> {
    if !layers.has_section("control") {
        return Some(None);
    }
    let url = layers.require("control.url", authority);
    let (roots, token) = (
        layers.require("control.roots", path),
        layers.require("control.token", path),
    );
    Some(Some(uplink::Config {
        fields: uplink::Fields::AGENT,
        url: url?,
        server_name: None,
        roots: roots?,
        token: token?,
    }))
}
