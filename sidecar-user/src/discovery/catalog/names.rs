//! What things of the cluster are called in discovery.

use crate::kubernetes::ObjectName;
use crate::model::ServiceName;

/// How the cluster is called.
#[derive(Clone, Debug)]
pub struct Names {
    /// The first part of each workload's uid.
    pub cluster: String,
    pub trust_domain: String,
    /// What the names of Services end in, e.g. `cluster.local`.
    pub domain: String,
    /// Istio's policies in this namespace are for the whole mesh.
    pub root_namespace: String,
}

impl Names {
    pub(super) fn service(&self, name: &ObjectName) -> ServiceName {
        ServiceName {
            namespace: name.namespace.clone(),
            hostname: format!("{}.{}.svc.{}", name.name, name.namespace, self.domain).into(),
        }
    }

    pub(super) fn pod_uid(&self, name: &ObjectName) -> String {
        format!("{}//Pod/{name}", self.cluster)
    }
}
