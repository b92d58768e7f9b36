//! Events on pods, for whoever looks at them with kubectl. Nobody waits for one: what has no room is dropped, what cannot be
//! written is logged once, and the same is not said again for an hour.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Client, Pod};

/// What is told of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// In UpperCamelCase, for machines.
    pub reason: &'static str,
    pub message: String,
}

impl Told {
    pub fn of(pod: &Pod, reason: &'static str, message: String) -> Self {
        Self {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            reason,
            message,
        }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Events(mpsc::Sender<Told>);

/// That wait to be written.
const MOST: usize = 128;
const PATIENCE: Duration = Duration::from_secs(10);
/// The API server keeps an event as long.
const AGAIN: Duration = Duration::from_secs(3600);
/// Of what was said. Beyond that it may be said again.
const REMEMBERED: usize = 4096;
/// What the API server takes of a message.
const LONGEST: usize = 1024;

impl Events {
    /// Written by the task that is returned, in the name of this component of that node.
    pub fn new(client: Client, component: &'static str, node: String) -> (Self, impl Future<Output = ()>) {
        let (sender, mut receiver) = mpsc::channel(MOST);
        let mut said = Said::default();
        let write = async move {
            while let Some(told) = receiver.recv().await {
                if !said.is_news(&told, Instant::now()) {
                    continue;
                }
                let api: Api<Event> = Api::namespaced(client.inner(), &told.namespace);
                let event = event(&told, component, &node, Timestamp::now());
                let (pod, namespace, reason) = (&told.name, &told.namespace, told.reason);
                match timeout(PATIENCE, api.create(&PostParams::default(), &event)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        let error = crate::error_chain(&error);
                        tracing::warn!(pod, namespace, reason, error, "an event cannot be written");
                    }
                    Err(_) => tracing::warn!(pod, namespace, reason, "an event cannot be written in time"),
                }
            }
        };
        (Self(sender), write)
    }

    pub fn tell(&self, told: Told) {
        if let Err(error) = self.0.try_send(told) {
            tracing::debug!(%error, "an event is not written");
        }
    }
}

#[derive(Default)]
struct Said(HashMap<(String, &'static str), Instant>);

impl Said {
    fn is_news(&mut self, told: &Told, now: Instant) -> bool {
        self.0.retain(|_, at| now.duration_since(*at) < AGAIN);
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        let key = (told.uid.clone(), told.reason);
        match self.0.contains_key(&key) {
            true => false,
            false => self.0.insert(key, now).is_none(),
        }
    }
}

fn event(told: &Told, component: &str, node: &str, now: Timestamp) -> Event {
    let mut message = told.message.clone();
    message.truncate(message.floor_char_boundary(LONGEST));
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}.", told.name.get(..200).unwrap_or(&told.name))),
            namespace: Some(told.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(told.namespace.clone()),
            name: Some(told.name.clone()),
            uid: Some(told.uid.clone()),
            ..ObjectReference::default()
        },
        reason: Some(told.reason.into()),
        message: Some(message),
        type_: Some("Warning".into()),
        source: Some(EventSource {
            component: Some(component.into()),
            host: Some(node.into()),
        }),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(uid: &str, reason: &'static str) -> Told {
        let pod = Pod {
            namespace: "shop".into(),
            name: "web-1".into(),
            uid: uid.into(),
            ..Pod::default()
        };
        Told::of(&pod, reason, "ä".repeat(LONGEST))
    }

    #[test]
    fn the_same_is_said_once_an_hour_and_memory_has_a_bound() {
        let (mut said, start) = (Said::default(), Instant::now());
        assert!(said.is_news(&told("u", "A"), start));
        assert!(!said.is_news(&told("u", "A"), start + AGAIN / 2));
        assert!(said.is_news(&told("u", "B"), start));
        assert!(said.is_news(&told("v", "A"), start));
        assert!(said.is_news(&told("u", "A"), start + AGAIN));
        for uid in 0..2 * REMEMBERED {
            said.is_news(&told(&uid.to_string(), "A"), start);
            assert!(said.0.len() <= REMEMBERED);
        }
    }

    #[test]
    fn an_event_is_about_the_pod_in_its_namespace_and_no_longer_than_the_server_takes() {
        let made = event(&told("u", "A"), "outrigger-agent", "n1", Timestamp::UNIX_EPOCH);
        assert_eq!(made.metadata.namespace, made.involved_object.namespace);
        assert_eq!(made.involved_object.uid.as_deref(), Some("u"));
        assert_eq!(made.message.map(|message| message.len()), Some(LONGEST));
        assert_eq!(made.type_.as_deref(), Some("Warning"));
    }
}
