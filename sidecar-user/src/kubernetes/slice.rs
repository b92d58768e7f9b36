//! EndpointSlices: where a Service is served. `v1.Endpoints`, which they have replaced, is never read.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::ObjectMeta;
use kube::runtime::watcher;
use serde::Deserialize;

use super::Client;
use super::object::{ObjectName, annotated_meta, resource};
use super::service::is_tcp;
use super::watch::{Change, follow};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub name: ObjectName,
    /// The Service of the same namespace that it is of.
    pub service: Option<Arc<str>>,
    /// Those for TCP, by the name that the Service's port has.
    pub ports: Vec<(String, u16)>,
    pub endpoints: Vec<SliceEndpoint>,
    /// When the pod or the Service changed that made this version necessary, where its controller says so.
    pub triggered: Option<SystemTime>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// The first one: the others are the same endpoint's, and nobody has ever written any.
    pub address: IpAddr,
    /// The pod of the same namespace that it is said to be.
    pub pod: Option<Arc<str>>,
    pub conditions: Conditions,
    pub hints: Hints,
    /// Where it stands; only of what is no pod, because of pods the pod itself says it.
    pub place: Option<Box<Place>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

/// Whether somebody has said whose clients it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    pub zones: bool,
    pub nodes: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub node: String,
    pub zone: String,
}

/// All EndpointSlices of the cluster over time.
pub fn slices(client: &Client) -> impl Stream<Item = Change<Slice>> + Send + use<> {
    let api: Api<Object> = Api::all(client.inner());
    follow(api, watcher::Config::default()).map(|change| change.map(Object::read))
}

/// As a watch would read the event, for a measurement of it.
#[cfg(test)]
pub(crate) fn slice_of(event: &str) -> Slice {
    let event: kube::core::WatchEvent<Object> = serde_json::from_str(event).expect("it is an event");
    match event {
        kube::core::WatchEvent::Modified(object) => object.read(),
        other => panic!("{other:?}"),
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Object {
    #[serde(deserialize_with = "annotated_meta")]
    metadata: ObjectMeta,
    /// `null` where there are none.
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

resource!(
    Object,
    NamespaceResourceScope,
    "discovery.k8s.io",
    "v1",
    "EndpointSlice",
    "endpointslices"
);

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: WrittenConditions,
    hints: Option<WrittenHints>,
    target_ref: Option<TargetRef>,
    node_name: Option<String>,
    zone: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct WrittenConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenHints {
    for_zones: Option<Vec<serde::de::IgnoredAny>>,
    for_nodes: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    kind: String,
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Port {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

impl Object {
    fn read(self) -> Slice {
        let name = ObjectName::of(&self.metadata);
        let labels = self.metadata.labels.unwrap_or_default();
        let service = labels.get(SERVICE_NAME).filter(|service| !service.is_empty());
        let endpoints = self.endpoints.unwrap_or_default().into_iter();
        let triggered = self.metadata.annotations.unwrap_or_default().remove(TRIGGERED);
        Slice {
            triggered: triggered.and_then(|time| read_time(&time)),
            service: service.map(|service| service.as_str().into()),
            ports: self
                .ports
                .unwrap_or_default()
                .into_iter()
                .filter_map(Port::read)
                .collect(),
            endpoints: endpoints
                .filter_map(|endpoint| endpoint.read(&name.namespace))
                .collect(),
            name,
        }
    }
}

fn read_time(text: &str) -> Option<SystemTime> {
    let Time(time) = serde_json::from_value(text.into()).ok()?;
    Some(time.into())
}

impl Endpoint {
    /// `None`: a name instead of an address.
    fn read(self, namespace: &str) -> Option<SliceEndpoint> {
        let address: IpAddr = self.addresses.first()?.parse().ok()?;
        // Nobody speaks for pods of another namespace.
        let pod = self
            .target_ref
            .filter(|target| {
                target.kind == "Pod" && (target.namespace.is_empty() || target.namespace == namespace)
            })
            .map(|target| target.name.into());
        let is_given = |hints: Option<Vec<_>>| hints.is_some_and(|hints| !hints.is_empty());
        let hints = self.hints.unwrap_or_default();
        let place = Place {
            node: self.node_name.unwrap_or_default(),
            zone: self.zone.unwrap_or_default(),
        };
        Some(SliceEndpoint {
            address,
            place: (pod.is_none() && place != Place::default()).then(|| Box::new(place)),
            pod,
            conditions: self.conditions.read(),
            hints: Hints {
                zones: is_given(hints.for_zones),
                nodes: is_given(hints.for_nodes),
            },
        })
    }
}

impl WrittenConditions {
    /// What is not said is no reason to leave an endpoint out.
    fn read(&self) -> Conditions {
        let ready = self.ready.unwrap_or(true);
        Conditions {
            ready,
            serving: self.serving.unwrap_or(ready),
            terminating: self.terminating.unwrap_or(false),
        }
    }
}

impl Port {
    /// `None` also for "all ports", which a Service cannot say.
    fn read(self) -> Option<(String, u16)> {
        is_tcp(self.protocol.as_deref().unwrap_or_default())
            .then_some((self.name.unwrap_or_default(), self.port?))
    }
}

#[cfg(test)]
mod tests;
