//! The configuration of `outrigger control`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::layers::{Layers, Setting, or};
use super::logging;
use super::values::{lifetime, path, server_name, status, trust_domain, word};
use crate::{control, issuer};

pub const SETTINGS: [Setting; 9] = [
    Setting {
        path: "listen",
        flag: "listen",
        env: "OUTRIGGER_LISTEN",
        value: "ADDRESS",
        help: "Where the certificate service listens [default: [::]:15012]",
        list: false,
    },
    Setting {
        path: "stateDir",
        flag: "state-dir",
        env: "OUTRIGGER_STATE_DIR",
        value: "DIR",
        help: "Directory of the CA's key, root certificate and tokens; made when absent",
        list: false,
    },
    Setting {
        path: "trustDomain",
        flag: "trust-domain",
        env: "OUTRIGGER_TRUST_DOMAIN",
        value: "NAME",
        help: "The trust domain that the CA signs for [default: cluster.local]",
        list: false,
    },
    Setting {
        path: "leafTtl",
        flag: "leaf-ttl",
        env: "OUTRIGGER_LEAF_TTL",
        value: "DURATION",
        help: "The longest life of a certificate [default: 24h]",
        list: false,
    },
    Setting {
        path: "serverNames",
        flag: "server-names",
        env: "OUTRIGGER_SERVER_NAMES",
        value: "NAMES",
        help: "Names and addresses in the service's own certificate, by commas [default: control.outrigger]",
        list: true,
    },
    Setting {
        path: "status",
        flag: "status",
        env: "OUTRIGGER_STATUS",
        value: "ADDRESS",
        help: "Where metrics and probes are answered, or none [default: [::]:15014]",
        list: false,
    },
    Setting {
        path: "podCertificates",
        flag: "pod-certificates",
        env: "OUTRIGGER_POD_CERTIFICATES",
        value: "BOOL",
        help: "true: sign PodCertificateRequests of the cluster that this pod runs in [default: false]",
        list: false,
    },
    logging::LEVEL,
    logging::FORMAT,
];

pub(super) fn read(layers: &Layers) -> Option<control::Config> {
    const LISTEN: &str = "write an address and a port, such as [::]:15012";
    let listen = match layers.is_given("listen") {
        true => layers.parse("listen", "socket address", LISTEN),
        false => Some(SocketAddr::new(IpAddr::from([0_u16; 8]), 15012)),
    };
    let state_dir: Option<PathBuf> = layers.require("stateDir", path);
    let trust_domain = match layers.is_given("trustDomain") {
        true => layers.read("trustDomain", trust_domain),
        false => Some("cluster.local".to_owned()),
    };
    let leaf_ttl = match layers.is_given("leafTtl") {
        true => layers.read("leafTtl", lifetime),
        false => Some(Duration::from_secs(24 * 60 * 60)),
    };
    let server_names = layers.read_list("serverNames", server_name);
    if server_names.as_ref().is_some_and(Vec::is_empty) {
        layers.problem(
            "serverNames",
            "the list is empty".into(),
            "name at least one that proxies dial",
        );
    }
    let status = match layers.is_given("status") {
        true => layers.read("status", status),
        // istiod's, and none of a proxy's on the same host.
        false => Some(Some(SocketAddr::new(IpAddr::from([0_u16; 8]), 15014))),
    };
    let pod_certificates = or(layers, "podCertificates", false, |path| {
        layers.read(path, word(&[("true", true), ("false", false)]))
    });
    Some(control::Config {
        status: status?,
        pod_certificates: pod_certificates?,
        issuer: issuer::Config {
            listen: listen?,
            state_dir: state_dir?,
            trust_domain: trust_domain?,
            leaf_ttl: leaf_ttl?,
            server_names: server_names.unwrap_or_else(|| vec!["control.outrigger".to_owned()]),
        },
    })
}
