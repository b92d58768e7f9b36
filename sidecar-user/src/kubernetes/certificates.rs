//! Which versions of `certificates.k8s.io` this API server serves, and how its objects of kinds that have several are asked for.

use kube::core::{ApiResource, GroupVersionKind};

use super::Client;

const GROUP: &str = "certificates.k8s.io";
/// The best first. What was before is of other fields.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// A version of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served(ApiResource);

/// `None`: it is not served, or not switched on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateKinds {
    pub pod_certificate_requests: Option<Served>,
    pub trust_bundles: Option<Served>,
}

impl Served {
    pub fn version(&self) -> &str {
        &self.0.version
    }

    pub(super) fn resource(&self) -> &ApiResource {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn of_requests(version: &str) -> Self {
        served(version, "PodCertificateRequest", "podcertificaterequests")
    }

    #[cfg(test)]
    pub(crate) fn of_bundles(version: &str) -> Self {
        served(version, "ClusterTrustBundle", "clustertrustbundles")
    }
}

/// Asks the API server; an error is words for a message.
pub async fn certificate_kinds(client: &Client) -> Result<CertificateKinds, String> {
    let mut kinds = CertificateKinds::default();
    for version in VERSIONS {
        let listed = client
            .inner()
            .list_api_group_resources(&format!("{GROUP}/{version}"))
            .await;
        let names: Vec<String> = match listed {
            Ok(list) => list.resources.into_iter().map(|one| one.name).collect(),
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(words(&error)),
        };
        let pick = |known: &mut Option<Served>, kind: &str, plural: &str| {
            if known.is_none() && names.iter().any(|name| name == plural) {
                *known = Some(served(version, kind, plural));
            }
        };
        pick(
            &mut kinds.pod_certificate_requests,
            "PodCertificateRequest",
            "podcertificaterequests",
        );
        pick(
            &mut kinds.trust_bundles,
            "ClusterTrustBundle",
            "clustertrustbundles",
        );
    }
    Ok(kinds)
}

fn served(version: &str, kind: &str, plural: &str) -> Served {
    let kind = GroupVersionKind::gvk(GROUP, version, kind);
    Served(ApiResource::from_gvk_with_plural(&kind, plural))
}

/// What the API server says itself is better than all that stands around it.
pub(super) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => crate::error_chain(other),
    }
}
