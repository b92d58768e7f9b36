//! Which authorization policies speak about which workload: an index. What they decide is `policy/authorization.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use super::authorization::{Policy, PolicyName, Scope};
use super::workload::Workload;

#[derive(Debug, Default)]
pub(super) struct Policies {
    global: Vec<Arc<Policy>>,
    by_namespace: HashMap<Arc<str>, Vec<Arc<Policy>>>,
    /// By the uid of the workload that names them.
    selected: HashMap<String, Selected>,
    selectors: Vec<Selector>,
}

#[derive(Debug, Default)]
struct Selected {
    found: Vec<Arc<Policy>>,
    missing: Vec<PolicyName>,
}

/// A policy of scope `WorkloadSelector`.
#[derive(Debug)]
struct Selector {
    policy: Arc<Policy>,
    /// Workloads of other namespaces than its own name it, so it selects across namespaces.
    crosses: bool,
}

/// The policies that speak about connections to one workload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Applicable<'s> {
    pub global: &'s [Arc<Policy>],
    pub namespace: &'s [Arc<Policy>],
    pub selected: &'s [Arc<Policy>],
    /// Named by the workload, but not in the registry: nobody knows what they would forbid.
    pub missing: &'s [PolicyName],
}

/// What the registry says about the workload that asks.
#[derive(Clone, Debug)]
pub enum Standing<'s> {
    /// It is one of these entries, and where there are several all have to let a connection in.
    Listed(Vec<Applicable<'s>>),
    Unlisted {
        /// The policies that speak about every workload of its namespace.
        general: Applicable<'s>,
        /// A policy that selects single workloads, and may have been meant for this one.
        meant: Option<&'s PolicyName>,
    },
}

impl Policies {
    /// `selects` has the names that each workload gives, by its uid and with its namespace. A policy that was in `before`
    /// just so is the same one, by its pointer.
    pub(super) fn new(
        before: &Policies,
        policies: Vec<Policy>,
        selects: HashMap<String, (String, Vec<PolicyName>)>,
    ) -> Self {
        let before: HashMap<&PolicyName, &Arc<Policy>> = before.all().map(|p| (&p.name, p)).collect();
        let mut next = Self::default();
        let mut by_name: HashMap<PolicyName, usize> = HashMap::new();
        for policy in policies {
            let policy = match before.get(&policy.name) {
                Some(same) if ***same == policy => (*same).clone(),
                _ => Arc::new(policy),
            };
            match policy.scope {
                Scope::Global => next.global.push(policy),
                Scope::Namespace => {
                    let namespace = policy.name.namespace.clone();
                    next.by_namespace.entry(namespace).or_default().push(policy);
                }
                Scope::WorkloadSelector => {
                    by_name.insert(policy.name.clone(), next.selectors.len());
                    next.selectors.push(Selector {
                        policy,
                        crosses: false,
                    });
                }
            }
        }
        for (uid, (namespace, names)) in selects {
            let mut selected = Selected::default();
            for name in names {
                match by_name.get(&name).and_then(|n| next.selectors.get_mut(*n)) {
                    Some(selector) => {
                        selector.crosses |= *name.namespace != *namespace;
                        selected.found.push(selector.policy.clone());
                    }
                    None => selected.missing.push(name),
                }
            }
            next.selected.insert(uid, selected);
        }
        next
    }

    pub(super) fn of(&self, workload: &Workload) -> Applicable<'_> {
        let selected = self.selected.get(&workload.uid);
        Applicable {
            selected: selected.map_or(&[], |s| &s.found),
            missing: selected.map_or(&[], |s| &s.missing),
            ..self.within(&workload.namespace)
        }
    }

    /// The policies that speak about every workload of a namespace.
    pub(super) fn within(&self, namespace: &str) -> Applicable<'_> {
        let namespace = self.by_namespace.get(namespace);
        Applicable {
            global: &self.global,
            namespace: namespace.map_or(&[], Vec::as_slice),
            ..Applicable::default()
        }
    }

    /// A policy that may select a workload of this namespace which nobody lists: one of the namespace's own, or one that
    /// selects across namespaces. What another namespace has for its own workloads closes nobody else's.
    pub(super) fn meant_for(&self, namespace: &str) -> Option<&PolicyName> {
        let meant = |s: &&Selector| s.crosses || *s.policy.name.namespace == *namespace;
        // A rehearsal forbids nothing.
        let obeyed = |s: &&Selector| !s.policy.dry_run;
        self.selectors
            .iter()
            .filter(obeyed)
            .find(meant)
            .map(|s| &s.policy.name)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Policy>> {
        let by_namespace = self.by_namespace.values().flatten();
        let selectors = self.selectors.iter().map(|s| &s.policy);
        self.global.iter().chain(by_namespace).chain(selectors)
    }
}

impl<'s> Applicable<'s> {
    pub fn all(&self) -> impl Iterator<Item = &'s Policy> + use<'s> {
        let Self {
            global,
            namespace,
            selected,
            ..
        } = *self;
        global.iter().chain(namespace).chain(selected).map(AsRef::as_ref)
    }

    fn is_same(&self, other: &Applicable<'_>) -> bool {
        let same = |a: &[Arc<Policy>], b: &[Arc<Policy>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        same(self.global, other.global)
            && same(self.namespace, other.namespace)
            && same(self.selected, other.selected)
            && self.missing == other.missing
    }
}

impl Standing<'_> {
    /// Do these and those decide alike, whatever is asked? What is the same and was read anew counts as different.
    pub fn is_same(&self, other: &Standing<'_>) -> bool {
        match (self, other) {
            (Self::Listed(a), Standing::Listed(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same(b))
            }
            (Self::Unlisted { general, meant }, Standing::Unlisted { general: g, meant: m }) => {
                general.is_same(g) && meant == m
            }
            _ => false,
        }
    }

    /// The policies of every entry that it may be.
    pub fn all(&self) -> impl Iterator<Item = &Policy> {
        let applicable = match self {
            Self::Listed(all) => all.as_slice(),
            Self::Unlisted { general, .. } => std::slice::from_ref(general),
        };
        applicable.iter().flat_map(Applicable::all)
    }
}
