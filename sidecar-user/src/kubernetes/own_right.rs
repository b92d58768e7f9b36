//! What may whoever asks do? The API server's authorizers say it about the caller himself, which everybody may ask.

use std::fmt;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use super::access_review::is_allowed;
use super::{Client, Error};

/// On an object, or on objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRight {
    pub verb: &'static str,
    pub group: &'static str,
    /// `RESOURCE` or `RESOURCE/SUBRESOURCE`.
    pub resource: &'static str,
    /// `None`: in every namespace, and on what has none.
    pub namespace: Option<String>,
    /// `None`: on all of them.
    pub name: Option<&'static str>,
}

impl OwnRight {
    pub const fn new(verb: &'static str, group: &'static str, resource: &'static str) -> Self {
        Self {
            verb,
            group,
            resource,
            namespace: None,
            name: None,
        }
    }

    pub fn within(self, namespace: &str) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            ..self
        }
    }

    pub fn named(self, name: &'static str) -> Self {
        Self {
            name: Some(name),
            ..self
        }
    }
}

/// As kubectl writes rights: `create pods/portforward`, `get flows.outrigger.example in the namespace shop`.
impl fmt::Display for OwnRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resource, below) = match self.resource.split_once('/') {
            Some((resource, below)) => (resource, format!("/{below}")),
            None => (self.resource, String::new()),
        };
        write!(f, "{} {resource}", self.verb)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        f.write_str(&below)?;
        if let Some(name) = self.name {
            write!(f, " {name}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in the namespace {namespace}"),
            None => Ok(()),
        }
    }
}

/// Of each right, whether the caller has it.
pub async fn own_rights(client: &Client, rights: &[OwnRight]) -> Result<Vec<bool>, Error> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.inner());
    let mut answers = Vec::with_capacity(rights.len());
    for right in rights {
        let (resource, below) = right.resource.split_once('/').unwrap_or((right.resource, ""));
        let question = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(right.group.into()),
                    version: Some("*".into()),
                    resource: Some(resource.into()),
                    subresource: Some(below.into()),
                    verb: Some(right.verb.into()),
                    namespace: right.namespace.clone(),
                    name: right.name.map(String::from),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = api.create(&PostParams::default(), &question).await;
        let answer = answer.map_err(|source| Error::asked("say what you may do", source))?;
        answers.push(answer.status.is_some_and(|status| is_allowed(&status)));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_written_as_kubectl_writes_them() {
        let text = |right: OwnRight| right.to_string();
        assert_eq!(text(OwnRight::new("list", "", "nodes")), "list nodes");
        assert_eq!(
            text(OwnRight::new("create", "", "pods/portforward").within("outrigger-system")),
            "create pods/portforward in the namespace outrigger-system"
        );
        assert_eq!(
            text(OwnRight::new("get", "apps", "deployments/scale").named("web")),
            "get deployments.apps/scale web"
        );
    }
}
