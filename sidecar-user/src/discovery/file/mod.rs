//! The registry as one YAML text, with the keys of ztunnel's local configuration. Pure: text in, snapshot out.
//! Reading files and noticing changes is `reload.rs`; what each key means for a user is in `docs/registry.md`.

mod address;
mod balancing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod lint;
mod policy;
mod reader;
mod service;
mod workload;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;

use crate::document::{Field, Problem, Problems, load};
use crate::model::authorization::Scope;
use crate::model::{ServiceName, Snapshot};
use reader::{Place, Reader};

/// What a text says, and what of it is not acted on.
#[derive(Debug)]
pub struct Registry {
    pub snapshot: Snapshot,
    pub warnings: Vec<Problem>,
    pub counts: Counts,
}

/// How many there are of each, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub workloads: usize,
    pub services: usize,
    pub policies: usize,
}

/// Reads a whole registry, or says everything that is wrong with it. `before` lends its generation and its
/// load counters.
pub fn parse(text: &str, before: &Snapshot) -> Result<Registry, Problems> {
    let node = load(text)?;
    let reader = Reader::default();
    let root = Field::root(&node, &reader.problems);
    let entries = read(&reader, &root);
    match Problems::new(reader.problems.into_inner()) {
        Some(problems) => Err(problems),
        None => Ok(Registry {
            counts: entries.counts(),
            snapshot: entries.build(before),
            warnings: reader.warnings.into_inner(),
        }),
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            workloads,
            services,
            policies,
        } = self;
        write!(
            f,
            "{workloads} workloads, {services} services, {policies} policies"
        )
    }
}

#[derive(Default)]
struct Entries {
    workloads: Vec<workload::Entry>,
    services: Vec<service::Entry>,
    policies: Vec<policy::Entry>,
}

fn read(reader: &Reader, root: &Field<'_>) -> Entries {
    const KEYS: [&str; 3] = ["workloads", "services", "policies"];
    let Some(object) = root.object(&KEYS) else {
        return Entries::default();
    };
    // A file that is being rewritten in place is empty for a moment. Taking that for an empty world would cut
    // every connection off from its service.
    if root.entries("a map").is_some_and(|entries| entries.is_empty()) {
        root.problem("the registry is empty", "write `workloads: []` if that is meant");
    }
    let entries = Entries {
        workloads: object.list_of("workloads", "a list of workloads", |field| {
            workload::read(reader, &field)
        }),
        services: object.list_of("services", "a list of services", |field| {
            service::read(reader, &field)
        }),
        policies: object.list_of("policies", "a list of policies", |field| {
            policy::read(reader, &field)
        }),
    };
    check_unique(reader, &entries);
    check_references(reader, &entries);
    entries
}

fn check_unique(reader: &Reader, entries: &Entries) {
    let mut uids = Unique::default();
    let mut addresses = Unique::default();
    for entry in &entries.workloads {
        uids.see(
            reader,
            &entry.workload.uid,
            &entry.uid,
            "give each workload a uid of its own",
        );
        for (ip, place) in entry.places.iter().filter(|_| !entry.host_network) {
            addresses.see(
                reader,
                ip,
                place,
                "give it to one workload, or set `networkMode: HostNetwork`",
            );
        }
    }
    let mut names = Unique::default();
    for entry in &entries.services {
        names.see(
            reader,
            &entry.service.name,
            &entry.place,
            "merge the two services",
        );
    }
    check_virtual_addresses(reader, &entries.services);
    let mut policies = Unique::default();
    for entry in &entries.policies {
        policies.see(
            reader,
            &entry.policy.name,
            &entry.place,
            "rename or remove one of them",
        );
    }
}

/// Services may share a virtual address while their ports tell them apart.
fn check_virtual_addresses(reader: &Reader, services: &[service::Entry]) {
    let mut taken: HashMap<IpAddr, Vec<(&service::Entry, &Place)>> = HashMap::new();
    for entry in services {
        for (ip, place) in &entry.places {
            let others = taken.entry(*ip).or_default();
            let shared = |other: &service::Entry| {
                let ports = &other.service.ports;
                if std::ptr::eq(other, entry) {
                    return Some(String::new());
                }
                let port = entry.service.ports.keys().find(|port| ports.contains_key(port));
                port.map(|port| format!(", with port {port}, too,"))
            };
            let clash = others
                .iter()
                .find_map(|(other, first)| Some((first, shared(other)?)));
            if let Some((first, port)) = clash {
                let (line, path) = (first.at.line, &first.path);
                let what = format!("`{ip}` stands already{port} at line {line} (`{path}`)");
                reader.problem(place, what, "give it to one service, or let their ports differ");
            }
            others.push((entry, place));
        }
    }
}

/// Refuses the second of two equal keys, and says where the first stands.
struct Unique<'e, K>(HashMap<&'e K, &'e Place>);

impl<K> Default for Unique<'_, K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<'e, K: Eq + Hash + fmt::Display> Unique<'e, K> {
    fn see(&mut self, reader: &Reader, key: &'e K, place: &'e Place, remedy: &str) {
        if let Some(first) = self.0.insert(key, place) {
            let what = format!(
                "`{key}` stands already at line {} (`{}`)",
                first.at.line, first.path
            );
            reader.problem(place, what, remedy);
        }
    }
}

fn check_references(reader: &Reader, entries: &Entries) {
    let services: HashSet<&ServiceName> = entries.services.iter().map(|e| &e.service.name).collect();
    let scopes = entries.policies.iter().map(|e| (&e.policy.name, e.policy.scope));
    let policies: HashMap<_, _> = scopes.collect();
    for entry in &entries.workloads {
        for (name, place) in &entry.service_places {
            if !services.contains(name) {
                let what = format!("there is no service `{name}`");
                reader.problem(place, what, "add it to `services`, or remove it here");
            }
        }
        for (name, place) in &entry.policies {
            let (what, remedy) = match policies.get(name) {
                Some(Scope::WorkloadSelector) => continue,
                Some(_) => (
                    format!("the policy `{name}` selects no single workloads"),
                    "give it the scope WorkloadSelector, or remove it here",
                ),
                None => (
                    format!("there is no policy `{name}`"),
                    "add it to `policies`, or remove it here",
                ),
            };
            let what = format!("{what}, so every connection to this workload is denied");
            reader.warning(place, what, remedy);
        }
        if entry.host_network && !entry.policies.is_empty() && entry.workload.pod().is_empty() {
            reader.warning(
                &entry.uid,
                "a proxy that shares its address finds the policies of its workload by the name, which is missing".into(),
                "give it `name`, as the proxy's `workload.name` has it",
            );
        }
    }
    let selecting = entries.workloads.iter().flat_map(|entry| &entry.policies);
    let selected: HashSet<_> = selecting.map(|(name, _)| name).collect();
    for entry in &entries.policies {
        if entry.policy.scope == Scope::WorkloadSelector && !selected.contains(&entry.policy.name) {
            reader.warning(
                &entry.place,
                "no workload names this policy, so it holds for none of them".into(),
                "name it in the `authorizationPolicies` of a workload, or remove it",
            );
        }
    }
}

impl Entries {
    fn counts(&self) -> Counts {
        Counts {
            workloads: self.workloads.len(),
            services: self.services.len(),
            policies: self.policies.len(),
        }
    }

    fn build(mut self, before: &Snapshot) -> Snapshot {
        // An address of its own beats one that is shared with the node.
        self.workloads.sort_by_key(|entry| !entry.host_network);
        let own: HashSet<IpAddr> = addresses(self.workloads.iter().filter(|e| !e.host_network)).collect();
        let shared: Vec<IpAddr> = addresses(self.workloads.iter().filter(|e| e.host_network))
            .filter(|ip| !own.contains(ip))
            .collect();
        let behind_waypoint: Vec<IpAddr> = addresses(self.workloads.iter().filter(|e| e.waypoint))
            .chain(
                self.services
                    .iter()
                    .filter(|e| e.waypoint)
                    .flat_map(|e| e.service.vips.iter().copied()),
            )
            .collect();
        let selects = self
            .workloads
            .iter()
            .map(|e| {
                let names = e.policies.iter().map(|(name, _)| name.clone()).collect();
                (e.workload.uid.clone(), (e.workload.namespace.clone(), names))
            })
            .collect();
        let workloads = self
            .workloads
            .into_iter()
            .map(workload::Entry::into_parts)
            .collect();
        let services = self.services.into_iter().map(|entry| entry.service).collect();
        let policies = self.policies.into_iter().map(|entry| entry.policy).collect();
        Snapshot::build(before, services, workloads)
            .without_addresses(shared)
            .with_waypoints(behind_waypoint)
            .with_policies(before, policies, selects)
    }
}

fn addresses<'e>(entries: impl Iterator<Item = &'e workload::Entry>) -> impl Iterator<Item = IpAddr> {
    entries.flat_map(|entry| entry.workload.addresses.iter().copied())
}

#[cfg(test)]
mod tests;
