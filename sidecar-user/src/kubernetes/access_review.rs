//! May somebody do this? Only what the API server's authorizers say.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::Api;
use kube::api::PostParams;

use super::{Client, DOMAIN, Error, User};

/// On one of our own resources, which exist as names of rights only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Right {
    pub verb: &'static str,
    pub resource: &'static str,
    /// `None`: in every namespace, and on what has none.
    pub namespace: Option<String>,
}

/// Whether the API server says yes.
pub async fn review_access(client: &Client, user: &User, right: &Right) -> Result<bool, Error> {
    let api: Api<SubjectAccessReview> = Api::all(client.inner());
    let question = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            resource_attributes: Some(ResourceAttributes {
                group: Some(DOMAIN.into()),
                version: Some("*".into()),
                resource: Some(right.resource.into()),
                verb: Some(right.verb.into()),
                namespace: right.namespace.clone(),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        },
        ..SubjectAccessReview::default()
    };
    let answer = api.create(&PostParams::default(), &question).await;
    let answer = answer.map_err(|source| Error::asked("review a right", source))?;
    Ok(answer.status.is_some_and(|status| is_allowed(&status)))
}

pub(super) fn is_allowed(status: &SubjectAccessReviewStatus) -> bool {
    status.allowed && status.denied != Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_denied_is_not_allowed_whatever_else_is_said() {
        let status = |allowed, denied| SubjectAccessReviewStatus {
            allowed,
            denied,
            ..SubjectAccessReviewStatus::default()
        };
        assert!(is_allowed(&status(true, None)));
        assert!(!is_allowed(&status(false, None)));
        assert!(!is_allowed(&status(true, Some(true))));
    }
}
