//! Where a PeerAuthentication demands mutual TLS: of a workload the oldest one that selects it, then its namespace's, then the
//! mesh's, each for what the ones before leave open. In a sidecar's proxy mutual TLS is always possible, so `DISABLE` is
//! `PERMISSIVE`.

use std::collections::BTreeMap;

use super::problem::{Problem, Teller};
use crate::kubernetes::{MutualTls, PeerAuthentication, PeerSpec};
use crate::model::authorization::{
    Action, Clause, Condition, Match, Policy, PolicyName, Rule, Scope, StringMatch,
};

/// The policy that denies all plaintext. No Kubernetes object has an underscore in its name.
pub const STATIC_STRICT: &str = "istio_converted_static_strict";
/// What the name of the policy begins with that is made of one object; the object's name follows.
pub const CONVERTED: &str = "converted_peer_authentication_";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) name: PolicyName,
    created: String,
    /// `None`: all workloads of the namespace; in the root namespace, all of the mesh.
    pub(super) labels: Option<BTreeMap<String, String>>,
    mode: Mode,
    ports: BTreeMap<u16, Mode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Unset,
    Permissive,
    Strict,
}

/// What holds for a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Demand<'p> {
    /// Of every port that is not among the exceptions.
    pub(super) is_strict: bool,
    /// Ports for which it is the other way round, and the one who says so.
    pub(super) exceptions: Vec<u16>,
    own: Option<&'p Peer>,
}

impl Peer {
    pub(super) fn read(object: &PeerAuthentication, root: &str, problems: &mut Vec<Problem>) -> Self {
        let mut teller = Teller {
            object: format!(
                "PeerAuthentication {}/{}",
                object.meta.namespace, object.meta.name
            ),
            problems,
        };
        let strict = PeerSpec {
            mtls: MutualTls {
                mode: "STRICT".into(),
            },
            ..PeerSpec::default()
        };
        let spec = object.spec.as_ref().unwrap_or_else(|error| {
            let what = format!("it cannot be read ({error}), so it is STRICT for its whole namespace");
            teller.tell(what, "correct it, or remove it");
            &strict
        });
        let labels = spec
            .selector
            .as_ref()
            .map(|selector| selector.match_labels.clone());
        let labels = labels.filter(|labels| !labels.is_empty());
        let ports = read_ports(&spec.port_level_mtls, &mut teller);
        if labels.is_some() && object.meta.namespace == root {
            let what = "it selects single workloads in the root namespace, where it is ignored".to_owned();
            teller.tell(what, "move it to the namespace of the workloads");
        }
        if labels.is_none() && !ports.is_empty() {
            let what = "`portLevelMtls` is ignored where it selects no single workloads".to_owned();
            teller.tell(what, "add a `selector`");
        }
        if !spec.others.is_empty() {
            let what = format!(
                "`{}` is not known here and changes nothing",
                spec.others.join("`, `")
            );
            teller.tell(what, "correct it, or remove it");
        }
        Self {
            name: PolicyName {
                namespace: object.meta.namespace.as_str().into(),
                name: object.meta.name.as_str().into(),
            },
            created: object.meta.creation_timestamp.clone(),
            mode: read_mode(&spec.mtls, &mut teller),
            ports: if labels.is_some() { ports } else { BTreeMap::new() },
            labels,
        }
    }

    pub(super) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels
            .as_ref()
            .is_some_and(|wanted| super::values::covers(wanted, labels))
    }

    /// The policy that demands what it says of ports, under which name a workload finds it.
    pub(super) fn policy_name(&self) -> PolicyName {
        PolicyName {
            namespace: self.name.namespace.clone(),
            name: format!("{CONVERTED}{}", self.name.name).into(),
        }
    }
}

/// Where several are for the same, the oldest holds.
pub(super) fn oldest<'p>(peers: impl Iterator<Item = &'p Peer>) -> Option<&'p Peer> {
    peers.min_by_key(|peer| (&peer.created, &peer.name))
}

/// `namespace` and `mesh` are those without a selector.
pub(super) fn demand<'p>(own: Option<&'p Peer>, namespace: Option<&Peer>, mesh: Option<&Peer>) -> Demand<'p> {
    let all = [own, namespace, mesh].into_iter().flatten();
    let mode = all.map(|peer| peer.mode).find(|mode| *mode != Mode::Unset);
    let is_strict = mode == Some(Mode::Strict);
    let ports = own.into_iter().flat_map(|own| &own.ports);
    let differs = |mode: Mode| mode != Mode::Unset && (mode == Mode::Strict) != is_strict;
    Demand {
        is_strict,
        exceptions: ports
            .filter(|(_, mode)| differs(**mode))
            .map(|(port, _)| *port)
            .collect(),
        own,
    }
}

impl Demand<'_> {
    /// Denies plaintext as it says; only for demands with exceptions.
    pub(super) fn policy(&self) -> Option<Policy> {
        let own = self.own.filter(|_| !self.exceptions.is_empty())?;
        let but = |port: &u16| Match {
            destination_ports: Condition {
                any_of: Vec::new(),
                none_of: vec![*port],
            },
            ..Match::default()
        };
        let at = |port: &u16| Match {
            destination_ports: Condition {
                any_of: vec![*port],
                none_of: Vec::new(),
            },
            ..plaintext()
        };
        let rules = match self.is_strict {
            true => {
                let mut matches: Vec<Match> = self.exceptions.iter().map(but).collect();
                // Where Istio has it, which tells whether the workload's own object is strict.
                let place = if own.mode == Mode::Strict {
                    0
                } else {
                    matches.len()
                };
                matches.insert(place, plaintext());
                vec![rule(matches)]
            }
            false => self.exceptions.iter().map(|port| rule(vec![at(port)])).collect(),
        };
        Some(deny(own.policy_name(), rules))
    }
}

/// Denies all plaintext to the workloads that name it.
pub(super) fn strict(root: &str) -> Policy {
    deny(strict_name(root), vec![rule(vec![plaintext()])])
}

pub(super) fn strict_name(root: &str) -> PolicyName {
    PolicyName {
        namespace: root.into(),
        name: STATIC_STRICT.into(),
    }
}

fn deny(name: PolicyName, rules: Vec<Rule>) -> Policy {
    Policy {
        name,
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules,
        dry_run: false,
    }
}

/// Each match a clause of its own: all of them must hold.
fn rule(matches: Vec<Match>) -> Rule {
    let clause = |one| Clause { matches: vec![one] };
    Rule {
        clauses: matches.into_iter().map(clause).collect(),
    }
}

/// A source that has proven nothing.
fn plaintext() -> Match {
    Match {
        principals: Condition {
            any_of: Vec::new(),
            none_of: vec![StringMatch::Presence],
        },
        ..Match::default()
    }
}

fn read_mode(mtls: &MutualTls, teller: &mut Teller<'_>) -> Mode {
    match &*mtls.mode {
        "" | "UNSET" => Mode::Unset,
        "DISABLE" | "PERMISSIVE" => Mode::Permissive,
        "STRICT" => Mode::Strict,
        other => {
            let what = format!("the mode {other} is not known, so it is STRICT");
            teller.tell(what, "write UNSET, DISABLE, PERMISSIVE or STRICT");
            Mode::Strict
        }
    }
}

fn read_ports(ports: &BTreeMap<String, MutualTls>, teller: &mut Teller<'_>) -> BTreeMap<u16, Mode> {
    let mut all = BTreeMap::new();
    for (key, mtls) in ports {
        let mode = read_mode(mtls, teller);
        match super::values::port(key) {
            Some(port) => drop(all.insert(port, mode)),
            None => teller.tell(
                format!("`{key}` is no port, so its mode is ignored"),
                "write its number",
            ),
        }
    }
    all
}
