//! Who a stream is for, and which policies are its business.

use std::sync::Arc;

use super::super::{Resource, Store, Stored, Touched};
use crate::model::authorization::Scope;

#[derive(Clone, Debug)]
pub enum Audience {
    /// A proxy of a whole node.
    Everybody,
    /// The sidecar of one pod.
    Pod {
        namespace: Arc<str>,
        /// Names of its addresses, by which its own workload is found.
        own: Vec<Arc<str>>,
    },
}

impl Audience {
    /// Policies reach a pod when they can speak about it: those of the whole mesh and of its namespace, and those that its
    /// workload names. Addresses are everybody's business.
    pub(super) fn sees(&self, stored: &Stored, store: &Store) -> bool {
        let (Self::Pod { namespace, own }, Resource::Policy(policy)) = (self, &stored.resource) else {
            return true;
        };
        let names_it = |workload: &Arc<Stored>| match &workload.resource {
            Resource::Workload(workload) => {
                let names = &workload.authorization_policies;
                names.iter().any(|name| **name == *stored.key.name)
            }
            _ => false,
        };
        policy.scope == Scope::Global
            || policy.name.namespace == *namespace
            || own.iter().flat_map(|name| store.named(name)).any(names_it)
    }

    /// Which policies its workload names may have changed.
    pub(super) fn is_touched(&self, touched: &Touched) -> bool {
        let Self::Pod { own, .. } = self else {
            return false;
        };
        let mut names = touched.resources.values();
        names.any(|names| own.iter().any(|own| names.contains(own)))
    }
}
