//! Who asks, and may they? What the API server says is remembered for some seconds, so that a screen that is drawn anew every second
//! does not ask it each time, and so that somebody who shows wrong tokens cannot make this agent ask for each.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::error_chain;
use crate::kubernetes::{Client, DOMAIN, Right, TOKEN_AUDIENCE, User, review_access, review_user};
use crate::observe::{Bearer, Reply};

/// For so long an answer of the API server holds: a right that was taken away ends as soon.
const HOLDS: Duration = Duration::from_secs(10);
const MOST: usize = 256;
/// Questions to the API server at a time.
const AT_ONCE: usize = 4;

pub(super) struct Callers {
    client: Client,
    /// By the hash of a token. `None`: nobody knows it.
    users: Remembered<[u8; 32], Option<User>>,
    allowed: Remembered<(String, Right), bool>,
    asking: Semaphore,
}

impl Callers {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            users: Remembered::default(),
            allowed: Remembered::default(),
            asking: Semaphore::new(AT_ONCE),
        }
    }

    /// The error is the answer.
    pub(super) async fn permit(&self, bearer: &Bearer, needed: &[Right]) -> Result<(), Reply> {
        let user = match self.user(bearer).await? {
            Some(user) => user,
            None => {
                return Err(Reply::Unknown(
                    "the API server does not know this token; sign in again".into(),
                ));
            }
        };
        for right in needed {
            if !self.may(&user, right).await? {
                return Err(Reply::Forbidden(refusal(&user, right)));
            }
        }
        Ok(())
    }

    async fn user(&self, Bearer(token): &Bearer) -> Result<Option<User>, Reply> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(user) = self.users.get(&key, Instant::now()) {
            return Ok(user);
        }
        let _place = self.asking.acquire().await;
        // A token is for the API server, or for us.
        let mut user = review_user(&self.client, token, None).await.map_err(unanswered)?;
        if user.is_none() {
            let ours = review_user(&self.client, token, Some(TOKEN_AUDIENCE)).await;
            user = ours.map_err(unanswered)?;
        }
        self.users.keep(key, user.clone(), Instant::now());
        Ok(user)
    }

    async fn may(&self, user: &User, right: &Right) -> Result<bool, Reply> {
        // Two tokens of one name may differ in their groups, so the whole user is the key.
        let key = (format!("{user:?}"), right.clone());
        if let Some(is_allowed) = self.allowed.get(&key, Instant::now()) {
            return Ok(is_allowed);
        }
        let _place = self.asking.acquire().await;
        let is_allowed = review_access(&self.client, user, right)
            .await
            .map_err(unanswered)?;
        self.allowed.keep(key, is_allowed, Instant::now());
        Ok(is_allowed)
    }
}

fn unanswered(error: crate::kubernetes::Error) -> Reply {
    let error = error_chain(&error);
    tracing::warn!(
        error,
        "the API server does not say who asks this agent, or what they may"
    );
    Reply::Busy(format!(
        "the API server does not tell this agent who asks and what they may: {error}"
    ))
}

fn refusal(
    user: &User,
    Right {
        verb,
        resource,
        namespace,
    }: &Right,
) -> String {
    let name = &user.name;
    let place = match (namespace, *resource) {
        (Some(namespace), _) => format!(" in the namespace {namespace}"),
        // They have no namespace.
        (None, "nodes") => String::new(),
        (None, _) => " in all namespaces".to_owned(),
    };
    let remedy = match (namespace, *resource) {
        (Some(namespace), resource) => {
            let role = if resource == "drains" { "edit" } else { "view" };
            format!(
                "an administrator grants it by the ClusterRole {role} in that namespace: kubectl create rolebinding NAME --namespace \
                 {namespace} --clusterrole {role} --user {name}"
            )
        }
        (None, "nodes") => format!(
            "it tells of pods of every namespace; an administrator grants it by kubectl create clusterrolebinding NAME --clusterrole \
             outrigger-nodes --user {name}"
        ),
        (None, _) => "name a namespace of yours by --namespace, or have an administrator bind the ClusterRole outrigger-view cluster-wide".into(),
    };
    format!("{name} may not {verb} {resource}.{DOMAIN}{place}; {remedy}")
}

/// Answers, each for [`HOLDS`], and [`MOST`] of them.
struct Remembered<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Remembered<K, V> {
    fn get(&self, key: &K, now: Instant) -> Option<V> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, value) = known.get(key)?;
        (now.duration_since(*since) < HOLDS).then(|| value.clone())
    }

    fn keep(&self, key: K, value: V, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, (since, _)| now.duration_since(*since) < HOLDS);
        }
        if known.len() >= MOST {
            let oldest = known
                .iter()
                .min_by_key(|(_, (since, _))| *since)
                .map(|(key, _)| key.clone());
            oldest.map(|key| known.remove(&key));
        }
        known.insert(key, (now, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_a_while_and_there_are_never_too_many() {
        let remembered = Remembered::default();
        let start = Instant::now();
        remembered.keep(0, true, start);
        assert_eq!(remembered.get(&0, start + HOLDS / 2), Some(true));
        assert_eq!(remembered.get(&0, start + HOLDS), None);
        for n in 1..=MOST as u64 {
            remembered.keep(n, false, start + Duration::from_millis(n));
        }
        assert_eq!(remembered.0.lock().unwrap().len(), MOST);
        assert_eq!(remembered.get(&0, start), None, "the oldest has gone");
        assert_eq!(remembered.get(&(MOST as u64), start), Some(false));
    }

    #[test]
    fn a_refusal_names_user_right_place_and_remedy() {
        let user = User {
            name: "ann".into(),
            ..User::default()
        };
        let right = |namespace: Option<&str>| Right {
            verb: "get",
            resource: "flows",
            namespace: namespace.map(String::from),
        };
        let nodes = Right {
            resource: "nodes",
            ..right(None)
        };
        let told = refusal(&user, &nodes);
        assert!(
            told.starts_with("ann may not get nodes.outrigger.example; "),
            "{told}"
        );
        assert!(
            told.contains("--clusterrole outrigger-nodes --user ann"),
            "{told}"
        );
        let drains = Right {
            verb: "create",
            resource: "drains",
            ..right(Some("shop"))
        };
        assert!(refusal(&user, &drains).contains("--clusterrole edit --user ann"));
        let told = refusal(&user, &right(Some("shop")));
        assert!(
            told.starts_with("ann may not get flows.outrigger.example in the namespace shop; "),
            "{told}"
        );
        assert!(
            told.contains("--namespace shop --clusterrole view --user ann"),
            "{told}"
        );
        assert!(
            refusal(&user, &right(None))
                .contains("in all namespaces; name a namespace of yours by --namespace")
        );
    }
}
