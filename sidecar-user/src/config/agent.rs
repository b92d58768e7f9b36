//! The configuration of `outrigger agent`.

use std::path::PathBuf;

use super::layers::{Layers, Setting};
use super::logging;
use super::values::absolute;
use crate::agent;

pub const SETTINGS: [Setting; 6] = [
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
        help: "cgroup2 directories whose children are pods, by commas; the kubelet's are found without",
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
        path: "adminSocket",
        flag: "admin-socket",
        env: "OUTRIGGER_ADMIN_SOCKET",
        value: "PATH",
        help: "Unix socket where the agent answers questions [default: /run/outrigger/agent.sock]",
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
    let admin_socket = match layers.is_given("adminSocket") {
        true => layers.read("adminSocket", absolute),
        false => Some("/run/outrigger/agent.sock".into()),
    };
    Some(agent::Config {
        pins: pins?,
        pods: pods.unwrap_or_default(),
        sidecar: sidecar?,
        admin_socket: admin_socket?,
    })
}
