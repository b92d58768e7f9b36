//! Istio's policies, AuthorizationPolicy and PeerAuthentication, become ours, and say which workloads they are for. Pure: objects in,
//! policies and problems out. Asks no API server, and enforces nothing; `policy/` does, in the proxies. What of the objects is read
//! is in `docs/policies.md`.

mod authorization;
mod peer;
mod problem;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::kubernetes::{AuthorizationPolicy, Change, IstioMeta, PeerAuthentication};
use crate::model::authorization::{Policy, PolicyName, Scope};
pub use peer::{CONVERTED, STATIC_STRICT};
use peer::{Demand, Peer};
pub use problem::Problem;

/// All of the cluster, and what they mean.
#[derive(Debug)]
pub struct IstioPolicies {
    /// Policies in it without a selector are for the whole mesh.
    root: Arc<str>,
    authorizations: Objects<Authorization>,
    peers: Objects<Read<Peer>>,
    served: BTreeMap<PolicyName, Policy>,
}

/// By namespace, then by name.
type Objects<T> = BTreeMap<Arc<str>, BTreeMap<Arc<str>, T>>;

/// An object as it is understood, and what of it is not.
#[derive(Debug)]
struct Read<T> {
    meaning: T,
    problems: Vec<Problem>,
}

type Authorization = Read<Option<Selecting>>;

#[derive(Debug)]
struct Selecting {
    policy: Policy,
    labels: BTreeMap<String, String>,
}

/// What one change has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// New ones, and those that are others than before.
    pub put: Vec<Policy>,
    pub removed: Vec<PolicyName>,
    /// The workloads whose `names_for` may be others than before.
    pub reach: Reach,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    #[default]
    Nobody,
    Namespace(Arc<str>),
    Everybody,
}

impl IstioPolicies {
    pub fn new(root: &str) -> Self {
        Self {
            root: root.into(),
            authorizations: Objects::new(),
            peers: Objects::new(),
            served: BTreeMap::new(),
        }
    }

    pub fn authorization(&mut self, change: Change<AuthorizationPolicy>) -> Changed {
        let root = self.root.clone();
        let namespace = store(
            &mut self.authorizations,
            change,
            |object| &object.meta,
            |object| {
                let mut problems = Vec::new();
                let policy = authorization::convert(&object, &root, &mut problems);
                let selector = object.spec.ok().and_then(|spec| spec.selector);
                let labels = selector.unwrap_or_default().match_labels;
                Read {
                    meaning: policy.map(|policy| Selecting { policy, labels }),
                    problems,
                }
            },
        );
        self.renew(namespace)
    }

    pub fn peer(&mut self, change: Change<PeerAuthentication>) -> Changed {
        let root = self.root.clone();
        let namespace = store(
            &mut self.peers,
            change,
            |object| &object.meta,
            |object| {
                let mut problems = Vec::new();
                let meaning = Peer::read(&object, &root, &mut problems);
                Read { meaning, problems }
            },
        );
        self.renew(namespace)
    }

    /// Policies of scope `WorkloadSelector` that hold for a workload. Those of the other scopes hold without being named.
    pub fn names_for(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<PolicyName> {
        let mut names: BTreeSet<PolicyName> = BTreeSet::new();
        let namespaces = BTreeSet::from([namespace, &*self.root]);
        for selecting in namespaces
            .into_iter()
            .flat_map(|namespace| self.selecting(namespace))
        {
            let is_selector = selecting.policy.scope == Scope::WorkloadSelector;
            if is_selector && values::covers(&selecting.labels, labels) {
                names.insert(selecting.policy.name.clone());
            }
        }
        let own = peer::oldest(
            self.selecting_peers(namespace)
                .filter(|peer| peer.selects(labels)),
        );
        let demand = self.demand(namespace, own);
        match own {
            Some(own) if !demand.exceptions.is_empty() => drop(names.insert(own.policy_name())),
            _ if demand.is_strict => drop(names.insert(peer::strict_name(&self.root))),
            _ => {}
        }
        names.into_iter().collect()
    }

    /// Everything that does not happen although an object says so.
    pub fn problems(&self) -> Vec<Problem> {
        let authorizations = self.authorizations.values().flat_map(BTreeMap::values);
        let peers = self.peers.values().flat_map(BTreeMap::values);
        let told = authorizations
            .flat_map(|read| &read.problems)
            .chain(peers.flat_map(|read| &read.problems));
        let mut all: Vec<Problem> = told.cloned().collect();
        for namespace in self.peers.keys() {
            let Some(first) = self.general(namespace) else {
                continue;
            };
            let others = self
                .peers_of(namespace)
                .filter(|peer| peer.labels.is_none() && *peer != first);
            all.extend(others.map(|other| Problem {
                object: format!("PeerAuthentication {}", other.name),
                what: format!(
                    "it is ignored, because {} is older and is for the same workloads",
                    first.name
                ),
                remedy: "remove one of them",
            }));
        }
        all
    }

    /// Of a namespace; `None`: of all.
    fn renew(&mut self, namespace: Option<Option<Arc<str>>>) -> Changed {
        let Some(namespace) = namespace else {
            return Changed::default();
        };
        let reach = match namespace {
            Some(namespace) if namespace != self.root => Reach::Namespace(namespace),
            _ => Reach::Everybody,
        };
        let is_renewed = |name: &PolicyName| match &reach {
            // The first PeerAuthentication, and the last one, are seen in the root namespace.
            Reach::Namespace(namespace) => name.namespace == *namespace || name.namespace == self.root,
            _ => true,
        };
        let mut old: BTreeMap<PolicyName, Policy> = BTreeMap::new();
        let mut kept: BTreeMap<PolicyName, Policy> = BTreeMap::new();
        for (name, policy) in std::mem::take(&mut self.served) {
            let to = if is_renewed(&name) { &mut old } else { &mut kept };
            to.insert(name, policy);
        }
        let mut put = Vec::new();
        for policy in self.derived().filter(|policy| is_renewed(&policy.name)) {
            if old.remove(&policy.name).as_ref() != Some(&policy) {
                put.push(policy.clone());
            }
            kept.insert(policy.name.clone(), policy);
        }
        self.served = kept;
        Changed {
            put,
            removed: old.into_keys().collect(),
            reach,
        }
    }

    fn derived(&self) -> impl Iterator<Item = Policy> {
        let selecting = self
            .authorizations
            .keys()
            .flat_map(|namespace| self.selecting(namespace));
        let written = selecting.map(|selecting| selecting.policy.clone());
        let peers = self
            .peers
            .keys()
            .flat_map(|namespace| self.selecting_peers(namespace));
        let of_peers = peers.filter_map(|own| self.demand(&own.name.namespace, Some(own)).policy());
        let strict = (!self.peers.is_empty()).then(|| peer::strict(&self.root));
        written.chain(of_peers).chain(strict)
    }

    fn selecting(&self, namespace: &str) -> impl Iterator<Item = &Selecting> {
        let objects = self.authorizations.get(namespace);
        objects
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter_map(|read| read.meaning.as_ref())
    }

    fn peers_of(&self, namespace: &str) -> impl Iterator<Item = &Peer> {
        let objects = self.peers.get(namespace);
        objects
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|read| &read.meaning)
    }

    /// In the root namespace none counts that selects single workloads.
    fn selecting_peers(&self, namespace: &str) -> impl Iterator<Item = &Peer> {
        let is_root = namespace == &*self.root;
        self.peers_of(namespace)
            .filter(move |peer| peer.labels.is_some() && !is_root)
    }

    /// The one that is for the whole namespace.
    fn general(&self, namespace: &str) -> Option<&Peer> {
        peer::oldest(self.peers_of(namespace).filter(|peer| peer.labels.is_none()))
    }

    fn demand<'p>(&self, namespace: &str, own: Option<&'p Peer>) -> Demand<'p> {
        peer::demand(own, self.general(namespace), self.general(&self.root))
    }
}

/// The namespace that has changed, inner `None` for all; `None`: nothing has.
fn store<K, T>(
    objects: &mut Objects<T>,
    change: Change<K>,
    meta: impl Fn(&K) -> &IstioMeta,
    read: impl Fn(K) -> T,
) -> Option<Option<Arc<str>>> {
    let names = |object: &K| -> (Arc<str>, Arc<str>) {
        let IstioMeta { namespace, name, .. } = meta(object);
        (namespace.as_str().into(), name.as_str().into())
    };
    match change {
        Change::All(all) => {
            objects.clear();
            for object in all {
                let (namespace, name) = names(&object);
                objects.entry(namespace).or_default().insert(name, read(object));
            }
            Some(None)
        }
        Change::Applied(object) => {
            let (namespace, name) = names(&object);
            let of_namespace = objects.entry(namespace.clone()).or_default();
            of_namespace.insert(name, read(object));
            Some(Some(namespace))
        }
        Change::Gone(object) => {
            let (namespace, name) = names(&object);
            let of_namespace = objects.get_mut(&*namespace)?;
            of_namespace.remove(&*name)?;
            if of_namespace.is_empty() {
                objects.remove(&*namespace);
            }
            Some(Some(namespace))
        }
        Change::Trouble(_) => None,
    }
}

#[cfg(test)]
mod tests;
