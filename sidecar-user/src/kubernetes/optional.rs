//! Objects of kinds that a cluster may not have, because nobody has installed them: Istio's policies. Where there is no such kind there
//! are no such objects, and it is looked for again.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, Stream, StreamExt};
use kube::Api;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Client;
use super::istio::{AuthorizationPolicy, PeerAuthentication};
use super::watch::{Change, follow};

const GROUP: &str = "security.istio.io";
/// The newer one first; both say the same.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Until a kind that is not there is looked for again, and a server that did not say is asked again.
const AGAIN: Duration = Duration::from_secs(15);
/// A kind that was there is believed to be gone after so many answers. An API server that starts knows no installed kinds for a
/// moment, and policies that are forgotten let everybody in.
const MISSING: u32 = 3;

/// All AuthorizationPolicies of the cluster over time.
pub fn authorization_policies(
    client: &Client,
) -> impl Stream<Item = Change<AuthorizationPolicy>> + Send + use<> {
    of_kind(client, "AuthorizationPolicy", "authorizationpolicies")
}

/// All PeerAuthentications of the cluster over time.
pub fn peer_authentications(
    client: &Client,
) -> impl Stream<Item = Change<PeerAuthentication>> + Send + use<> {
    of_kind(client, "PeerAuthentication", "peerauthentications")
}

fn of_kind<T: DeserializeOwned + Send + 'static>(
    client: &Client,
    kind: &'static str,
    plural: &'static str,
) -> impl Stream<Item = Change<T>> + Send + use<T> {
    let (asked, followed) = (client.clone(), client.clone());
    while_served(
        move || version(asked.clone(), plural).boxed(),
        move |version| {
            let gvk = GroupVersionKind::gvk(GROUP, version, kind);
            let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
            let api: Api<DynamicObject> = Api::all_with(followed.inner(), &resource);
            follow(api, watcher::Config::default())
                .filter_map(|change| async { read(change) })
                .boxed()
        },
    )
}

/// The version in which the server has this kind, if it has it.
async fn version(client: Client, plural: &'static str) -> Result<Option<&'static str>, String> {
    for version in VERSIONS {
        let listed = client
            .inner()
            .list_api_group_resources(&format!("{GROUP}/{version}"))
            .await;
        match listed {
            Ok(list) if list.resources.iter().any(|resource| resource.name == plural) => {
                return Ok(Some(version));
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(crate::error_chain(&error)),
        }
    }
    Ok(None)
}

/// `None`: it is no object of that kind, which a server does not send.
fn read<T: DeserializeOwned>(change: Change<DynamicObject>) -> Option<Change<T>> {
    let one = |object: DynamicObject| {
        let object = json!({ "metadata": object.metadata, "spec": object.data["spec"] });
        serde_json::from_value::<T>(object).ok()
    };
    Some(match change {
        Change::All(all) => Change::All(all.into_iter().filter_map(one).collect()),
        Change::Applied(object) => Change::Applied(one(object)?),
        Change::Gone(object) => Change::Gone(one(object)?),
        Change::Trouble(why) => Change::Trouble(why),
    })
}

type Asked = Pin<Box<dyn Future<Output = Result<Option<&'static str>, String>> + Send>>;

enum State<T> {
    Absent {
        /// Nobody has been told yet that there are none.
        untold: bool,
        /// It has just been asked.
        rest: bool,
    },
    Served {
        changes: BoxStream<'static, Change<T>>,
        missing: u32,
    },
}

/// `ask` says whether the kind is there, `follow` what its objects are then.
fn while_served<T: Send + 'static>(
    ask: impl Fn() -> Asked + Send + 'static,
    follow: impl Fn(&'static str) -> BoxStream<'static, Change<T>> + Send + 'static,
) -> impl Stream<Item = Change<T>> + Send {
    let begun = State::Absent {
        untold: true,
        rest: false,
    };
    stream::unfold((begun, ask, follow), |(mut state, ask, follow)| async move {
        loop {
            let (told, next) = match state {
                State::Absent { untold, rest } => {
                    if rest {
                        tokio::time::sleep(AGAIN).await;
                    }
                    let absent = |untold| State::Absent { untold, rest: true };
                    match ask().await {
                        Ok(None) => (untold.then(|| Change::All(Vec::new())), absent(false)),
                        Err(why) => (Some(Change::Trouble(why)), absent(untold)),
                        Ok(Some(version)) => {
                            let changes = follow(version);
                            (None, State::Served { changes, missing: 0 })
                        }
                    }
                }
                State::Served { mut changes, missing } => {
                    let change = changes.next().await?;
                    let is_missing = matches!(change, Change::Trouble(_)) && ask().await == Ok(None);
                    let missing = if is_missing { missing + 1 } else { 0 };
                    let next = match missing {
                        MISSING => State::Absent {
                            untold: true,
                            rest: false,
                        },
                        _ => State::Served { changes, missing },
                    };
                    (Some(change), next)
                }
            };
            state = next;
            if let Some(change) = told {
                return Some((change, (state, ask, follow)));
            }
        }
    })
}

#[cfg(test)]
mod tests;
