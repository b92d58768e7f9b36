//! Who the proxy is, and where its certificates come from.

use std::path::PathBuf;
use std::time::Duration;

use super::super::layers::{Layers, or};
use super::super::values::{authority, cluster_id, id_segment, lifetime, path, server_name, trust_domain};
use crate::identity;
use crate::model::SpiffeId;

const BUNDLE: &str = "identity.bundle";

/// The door of the agent, through which it may ask for certificates, too.
pub(super) const AGENT: &str = "interception.agent";

pub(super) fn read(layers: &Layers) -> Option<identity::Config> {
    let source = match layers.is_given(BUNDLE) {
        true => read_files(layers).map(identity::Source::Files),
        false => read_ask(layers).map(identity::Source::Authority),
    };
    let id = read_id(layers);
    Some(identity::Config {
        id: id?,
        source: source?,
    })
}

/// Whoever writes the bundle decides how long certificates live and when they are renewed.
fn read_files(layers: &Layers) -> Option<identity::Files> {
    for field in [
        "identity.authority",
        "identity.clusterId",
        "identity.serverName",
        "identity.token",
        "identity.ttl",
        "identity.refresh",
    ] {
        if layers.is_given(field) {
            let what = "it is given, and identity.bundle too, where certificates come in a file".to_owned();
            layers.problem(field, what, "keep the one or the other");
        }
    }
    let (bundle, roots) = (
        layers.require(BUNDLE, path),
        layers.require("identity.roots", path),
    );
    Some(identity::Files {
        bundle: bundle?,
        roots: roots?,
    })
}

fn read_ask(layers: &Layers) -> Option<identity::Ask> {
    const AUTHORITY: &str = "identity.authority";
    let agents = |text: &str| match text {
        identity::AGENT => Ok(text.to_owned()),
        url => authority(url),
    };
    let (authority, server) = (
        layers.require(AUTHORITY, agents),
        or(layers, "identity.serverName", None, |path| {
            layers.read(path, server_name).map(Some)
        }),
    );
    let is_agents = authority.as_deref() == Some(identity::AGENT);
    if is_agents && !layers.is_given(AGENT) {
        let what = "it is the agent, and interception.agent is missing, where that one is asked".into();
        layers.problem(
            AUTHORITY,
            what,
            "set interception.agent, or write https://host:port",
        );
    }
    for field in ["identity.roots", "identity.serverName"] {
        if is_agents && layers.is_given(field) {
            let what = "it is given, and the authority is the agent of this node, which needs none".into();
            layers.problem(field, what, "remove it, or write the URL of an authority");
        }
    }
    let roots = match is_agents {
        true => Some(PathBuf::new()),
        false => layers.require("identity.roots", path),
    };
    let token = layers.require("identity.token", path);
    // What istiod calls the only cluster unless told otherwise.
    let cluster = or(layers, "identity.clusterId", "Kubernetes".to_owned(), |path| {
        layers.read(path, cluster_id)
    });
    let ttl = or(
        layers,
        "identity.ttl",
        Duration::from_secs(24 * 60 * 60),
        |path| layers.read(path, lifetime),
    );
    let refresh = or(layers, "identity.refresh", Duration::from_secs(60 * 60), |path| {
        layers.read(path, lifetime)
    });
    Some(identity::Ask {
        authority: authority?,
        server_name: server?,
        roots: roots?,
        token: token?,
        cluster: cluster?,
        ttl: ttl?,
        refresh: refresh?,
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
