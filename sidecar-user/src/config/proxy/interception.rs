//! The section `interception`: who attaches the programs, and to what.

use std::path::PathBuf;

use super::super::layers::{Layers, or};
use super::super::values::{absolute, address, port, word};
use super::svid::AGENT;
use crate::grant::Door;
use crate::proxy::OwnPod;

pub(super) const NETNS: &str = "interception.netns";
const CGROUP: &str = "interception.cgroup";
const POD: &str = "interception.pod";
const PROBE_PORTS: &str = "interception.probePorts";
const NODE_ADDRESSES: &str = "interception.nodeAddresses";

/// The fields of the section.
pub(super) struct Target {
    /// Whoever installs it, in the place of this process: then the next three are empty.
    pub(super) agent: Option<Door>,
    /// A pod that this process is in, whose cgroup is found at start: then the next one is empty.
    pub(super) own_pod: Option<OwnPod>,
    pub(super) cgroup: PathBuf,
    pub(super) netns: Option<PathBuf>,
    pub(super) pins: PathBuf,
    pub(super) allow_whole_host: bool,
}

/// Inner `None`: nothing is to be attached, which has to be said: a proxy that is ready and intercepts nothing would
/// leave its pod in plaintext, and nobody would notice.
pub(super) fn read_interception(layers: &Layers) -> Option<Option<Target>> {
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
            let own = [CGROUP, "interception.pins", NETNS, POD];
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
                own_pod: None,
                cgroup: PathBuf::new(),
                netns: None,
                pins: PathBuf::new(),
                allow_whole_host: false,
            }))
        }
        (false, true) if layers.is_given(POD) => read_own_pod(layers).map(Some),
        (false, true) => {
            for field in [PROBE_PORTS, NODE_ADDRESSES] {
                if layers.is_given(field) {
                    let what = "it is given, and interception.pod is missing".to_owned();
                    layers.problem(field, what, "set interception.pod, or leave this out");
                }
            }
            let (cgroup, pins) = (
                layers.require(CGROUP, absolute),
                layers.require("interception.pins", absolute),
            );
            let allow_whole_host = or(layers, "interception.allowWholeHost", false, |path| {
                layers.read(path, word(&[("true", true), ("false", false)]))
            });
            let netns = or(layers, NETNS, None, |path| layers.read(path, absolute).map(Some));
            Some(Some(Target {
                agent: None,
                own_pod: None,
                cgroup: cgroup?,
                netns: netns?,
                pins: pins?,
                allow_whole_host: allow_whole_host?,
            }))
        }
    }
}

/// Its own cgroup and its own network namespace: neither is named.
fn read_own_pod(layers: &Layers) -> Option<Target> {
    for field in [CGROUP, NETNS] {
        if layers.is_given(field) {
            let what = "it is given, and interception.pod too, by which it is found".to_owned();
            layers.problem(field, what, "keep the one or the other");
        }
    }
    let uid = layers.read(POD, |text| {
        text.parse().map_err(|_| {
            (
                format!("`{text}` is no pod UID"),
                "take it from the downward API: fieldPath metadata.uid".to_owned(),
            )
        })
    });
    let ports = match layers.is_given(PROBE_PORTS) {
        true => layers.read_list(PROBE_PORTS, port)?,
        false => Vec::new(),
    };
    let node_addresses = match layers.is_given(NODE_ADDRESSES) {
        true => layers.read_list(NODE_ADDRESSES, address)?,
        false => Vec::new(),
    };
    let (uid, pins): (_, Option<PathBuf>) = (uid, layers.require("interception.pins", absolute));
    let own_pod = OwnPod {
        uid: uid?,
        probe_ports: ports.into_iter().collect(),
        node_addresses: node_addresses.into_iter().collect(),
    };
    Some(Target {
        agent: None,
        pins: pins?.join(own_pod.uid.as_str()),
        own_pod: Some(own_pod),
        cgroup: PathBuf::new(),
        netns: None,
        allow_whole_host: false,
    })
}
