//! The configuration of `outrigger control`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::layers::{Layers, Setting, or};
use super::logging;
use super::values::{
    cluster_domain, cluster_id, id_segment, lifetime, namespace, path, server_name, status, trust_domain,
    word,
};
use super::webhook;
use crate::{control, issuer};

pub const SETTINGS: [Setting; 17] = [
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
        help: "Names and addresses in the service's own certificate, by commas [default: control.outrigger; in a cluster those of the Service outrigger-control]",
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
        path: "webhook",
        flag: "webhook",
        env: "OUTRIGGER_WEBHOOK",
        value: "ADDRESS",
        help: "Where the webhook that injects sidecars listens, such as [::]:15017, or none [default: none]",
        list: false,
    },
    Setting {
        path: "webhookProfile",
        flag: "webhook-profile",
        env: "OUTRIGGER_PROFILE",
        value: "FILE",
        help: "What its sidecars are made of",
        list: false,
    },
    Setting {
        path: "webhookConfiguration",
        flag: "webhook-configuration",
        env: "OUTRIGGER_WEBHOOK_CONFIGURATION",
        value: "NAME",
        help: "The MutatingWebhookConfiguration that names it [default: outrigger-inject]",
        list: false,
    },
    Setting {
        path: "kubernetes",
        flag: "kubernetes",
        env: "OUTRIGGER_KUBERNETES",
        value: "NAMESPACE",
        help: "In a cluster: the namespace of this pod. The CA is kept in a Secret there, and tokens of pods are reviewed",
        list: false,
    },
    Setting {
        path: "agentAccount",
        flag: "agent-account",
        env: "OUTRIGGER_AGENT_ACCOUNT",
        value: "NAME",
        help: "In a cluster: the service account of the agents, in the same namespace [default: outrigger-agent]",
        list: false,
    },
    Setting {
        path: "clusterDomain",
        flag: "cluster-domain",
        env: "OUTRIGGER_CLUSTER_DOMAIN",
        value: "NAME",
        help: "In a cluster: what the DNS names of its Services end in, as its kubelets have it [default: cluster.local]",
        list: false,
    },
    Setting {
        path: "clusterId",
        flag: "cluster-id",
        env: "OUTRIGGER_CLUSTER_ID",
        value: "NAME",
        help: "In a cluster: its own name, by which its workloads are told from those of other clusters [default: Kubernetes]",
        list: false,
    },
    Setting {
        path: "rootNamespace",
        flag: "root-namespace",
        env: "OUTRIGGER_ROOT_NAMESPACE",
        value: "NAMESPACE",
        help: "In a cluster: the namespace whose policies of Istio's kinds are for the whole mesh [default: istio-system]",
        list: false,
    },
    Setting {
        path: "podCertificates",
        flag: "pod-certificates",
        env: "OUTRIGGER_POD_CERTIFICATES",
        value: "BOOL",
        help: "In a cluster: true signs PodCertificateRequests, where its API server has them [default: false]",
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
    let domain = read_domain(layers);
    let cluster = read_cluster(layers, domain.as_deref());
    let in_cluster = cluster.as_ref().is_some_and(Option::is_some);
    if in_cluster && layers.is_given("stateDir") {
        let what = "it is given, and the CA is kept in a Secret, as `kubernetes` says".into();
        layers.problem("stateDir", what, "keep the one or the other");
    }
    let state_dir: Option<PathBuf> = match in_cluster {
        true => Some(PathBuf::new()),
        false => layers.require("stateDir", path),
    };
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
    let webhook = webhook::read(
        layers,
        domain.as_deref().unwrap_or_default(),
        server_names.as_deref().unwrap_or_default(),
    )?;
    let pod_certificates = or(layers, "podCertificates", false, |path| {
        layers.read(path, word(&[("true", true), ("false", false)]))
    });
    let (cluster, domain) = (cluster?, domain?);
    let default_names = || match &cluster {
        Some(cluster) => {
            let service = format!("outrigger-control.{}.svc", cluster.namespace);
            vec![service.clone(), format!("{service}.{domain}")]
        }
        None => vec!["control.outrigger".to_owned()],
    };
    Some(control::Config {
        webhook,
        pod_certificates: pod_certificates?,
        status: status?,
        issuer: issuer::Config {
            listen: listen?,
            state_dir: state_dir?,
            trust_domain: trust_domain?,
            leaf_ttl: leaf_ttl?,
            server_names: server_names.unwrap_or_else(default_names),
        },
        cluster,
    })
}

/// Also the webhook's, which may run without the rest.
fn read_domain(layers: &Layers) -> Option<String> {
    const PATH: &str = "clusterDomain";
    if layers.is_given(PATH) && !layers.is_given("kubernetes") && !layers.is_given("webhook") {
        let what = "it is given, and neither `kubernetes` nor `webhook` is".into();
        layers.problem(PATH, what, "set kubernetes to the namespace of this pod");
    }
    or(layers, PATH, "cluster.local".to_owned(), |path| {
        layers.read(path, cluster_domain)
    })
}

/// Inner `None`: this is none.
fn read_cluster(layers: &Layers, domain: Option<&str>) -> Option<Option<control::Cluster>> {
    if !layers.is_given("kubernetes") {
        for path in ["agentAccount", "clusterId", "rootNamespace"] {
            if layers.is_given(path) {
                let what = "it is given, and `kubernetes` is missing".into();
                layers.problem(path, what, "set kubernetes to the namespace of this pod");
            }
        }
        return Some(None);
    }
    let of_cluster = layers.read("kubernetes", id_segment);
    let agent_account = or(layers, "agentAccount", "outrigger-agent".to_owned(), |path| {
        layers.read(path, id_segment)
    });
    // What istiod calls the only cluster unless told otherwise.
    let id = or(layers, "clusterId", "Kubernetes".to_owned(), |path| {
        layers.read(path, cluster_id)
    });
    let root_namespace = or(layers, "rootNamespace", "istio-system".to_owned(), |path| {
        layers.read(path, namespace)
    });
    Some(Some(control::Cluster {
        namespace: of_cluster?,
        agent_account: agent_account?,
        id: id?,
        domain: domain?.to_owned(),
        root_namespace: root_namespace?,
    }))
}
