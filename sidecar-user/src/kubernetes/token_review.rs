//! Whom does a token stand for? Only what the API server says of it, never what it says of itself.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Api;
use kube::api::PostParams;

use super::{Client, Error};

const ACCOUNT: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// A token that the API server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    /// Of those that were asked for, the ones that the token was made for.
    pub audiences: Vec<String>,
    /// `None`: it stands for a person or a machine.
    pub account: Option<ServiceAccount>,
    /// What it is bound to. `None`: to the service account alone.
    pub pod: Option<BoundPod>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    pub name: String,
    pub uid: String,
    /// Where it was when the token was made.
    pub node: String,
}

/// Somebody as the API server knows them, for the question what they may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: Option<String>,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Whom a token stands for. Without an audience it has to be one for the API server itself. `None`: the API server does not know the
/// token, or it has expired.
pub async fn review_user(
    client: &Client,
    token: &str,
    audience: Option<&str>,
) -> Result<Option<User>, Error> {
    let audiences: Vec<&str> = audience.into_iter().collect();
    let status = ask(client, token, &audiences).await?;
    Ok(status.filter(is_authenticated).and_then(|status| {
        let user = status.user?;
        Some(User {
            name: user.username?,
            uid: user.uid,
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        })
    }))
}

/// `None`: the API server does not know the token, or it has expired.
pub async fn review_token(
    client: &Client,
    token: &str,
    audiences: &[&str],
) -> Result<Option<Reviewed>, Error> {
    Ok(ask(client, token, audiences).await?.and_then(read))
}

async fn ask(client: &Client, token: &str, audiences: &[&str]) -> Result<Option<TokenReviewStatus>, Error> {
    let api: Api<TokenReview> = Api::all(client.inner());
    let question = TokenReview {
        spec: TokenReviewSpec {
            audiences: (!audiences.is_empty()).then(|| audiences.iter().map(ToString::to_string).collect()),
            token: token.to_owned(),
        },
        ..TokenReview::default()
    };
    let answer = api.create(&PostParams::default(), &question).await;
    let answer = answer.map_err(|source| Error::asked("review a token", source))?;
    Ok(answer.status)
}

fn is_authenticated(status: &TokenReviewStatus) -> bool {
    status.authenticated == Some(true) && status.error.as_deref().unwrap_or_default().is_empty()
}

fn read(status: TokenReviewStatus) -> Option<Reviewed> {
    if !is_authenticated(&status) {
        return None;
    }
    let user = status.user.unwrap_or_default();
    let extra = user.extra.unwrap_or_default();
    Some(Reviewed {
        audiences: status.audiences.unwrap_or_default(),
        account: user.username.as_deref().and_then(account),
        pod: bound(&extra),
    })
}

fn account(username: &str) -> Option<ServiceAccount> {
    let (namespace, name) = username.strip_prefix(ACCOUNT)?.split_once(':')?;
    Some(ServiceAccount {
        namespace: namespace.into(),
        name: name.into(),
    })
}

fn bound(extra: &BTreeMap<String, Vec<String>>) -> Option<BoundPod> {
    let one = |key: &str| match extra.get(key)?.as_slice() {
        [value] if !value.is_empty() => Some(value.clone()),
        _ => None,
    };
    Some(BoundPod {
        name: one(POD_NAME)?,
        uid: one(POD_UID)?,
        node: one(NODE_NAME)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: serde_json::Value) -> Option<Reviewed> {
        read(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn a_token_of_a_pod_names_account_pod_and_node() {
        let reviewed = status(serde_json::json!({
            "authenticated": true, "audiences": ["outrigger"],
            "user": { "username": "system:serviceaccount:demo:client", "extra": {
                POD_NAME: ["client-1"], POD_UID: ["u1"], NODE_NAME: ["n1"] } },
        }));
        let reviewed = reviewed.unwrap();
        assert_eq!(reviewed.audiences, ["outrigger"]);
        assert_eq!(reviewed.account.unwrap().name, "client");
        let pod = reviewed.pod.unwrap();
        assert_eq!((&*pod.name, &*pod.uid, &*pod.node), ("client-1", "u1", "n1"));
    }

    #[test]
    fn what_is_not_said_once_and_clearly_is_not_said() {
        let user = |extra: serde_json::Value| {
            let user = serde_json::json!({ "username": "system:serviceaccount:demo:client", "extra": extra });
            status(serde_json::json!({ "authenticated": true, "user": user })).unwrap()
        };
        for extra in [
            serde_json::json!({}),
            serde_json::json!({ POD_NAME: ["a"], POD_UID: ["u"] }),
            serde_json::json!({ POD_NAME: ["a", "b"], POD_UID: ["u"], NODE_NAME: ["n"] }),
            serde_json::json!({ POD_NAME: ["a"], POD_UID: [""], NODE_NAME: ["n"] }),
        ] {
            assert_eq!(user(extra.clone()).pod, None, "{extra}");
        }
        for refused in [
            serde_json::json!({}),
            serde_json::json!({ "authenticated": false }),
            serde_json::json!({ "authenticated": true, "error": "expired" }),
        ] {
            assert_eq!(status(refused.clone()), None, "{refused}");
        }
        assert_eq!(account("system:node:n1"), None);
        assert_eq!(account("system:serviceaccount:demo"), None);
    }
}
