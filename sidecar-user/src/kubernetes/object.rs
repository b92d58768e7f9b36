//! What every object has, read without what nobody here asks for. `managedFields` alone are often half of a pod.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// An object of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectName {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub(super) fn of(meta: &ObjectMeta) -> Self {
        let text = |field: &Option<String>| field.as_deref().unwrap_or_default().into();
        Self {
            namespace: text(&meta.namespace),
            name: text(&meta.name),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `A`: annotations as they are, or not at all. On some objects somebody keeps all that he last wrote in one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted<A> {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: A,
    owner_references: Option<Vec<OwnerReference>>,
}

/// For `#[serde(deserialize_with)]` of a `metadata` field. Names, labels, owners and the version that a watch goes on from;
/// nothing else.
pub(super) fn slim_meta<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    Wanted::<IgnoredAny>::deserialize(deserializer).map(|wanted| wanted.read(None))
}

/// The same, with annotations.
pub(super) fn annotated_meta<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let mut wanted = Wanted::<Option<BTreeMap<String, String>>>::deserialize(deserializer)?;
    let annotations = wanted.annotations.take();
    Ok(wanted.read(annotations))
}

impl<A> Wanted<A> {
    fn read(self, annotations: Option<BTreeMap<String, String>>) -> ObjectMeta {
        ObjectMeta {
            name: self.name,
            namespace: self.namespace,
            resource_version: self.resource_version,
            labels: self.labels,
            annotations,
            owner_references: self.owner_references,
            ..ObjectMeta::default()
        }
    }
}

/// Tells the client where objects of this type are, which have a field `metadata`. `metadata_only` leaves it to the server to
/// send no other field.
macro_rules! resource {
    ($type:ty, $scope:ident, $group:literal, $version:literal, $kind:literal, $plural:literal $(, $metadata_only:literal)?) => {
        impl ::kube::Resource for $type {
            type DynamicType = ();
            type Scope = ::k8s_openapi::$scope;

            fn kind(_: &()) -> ::std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group(_: &()) -> ::std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version(_: &()) -> ::std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural(_: &()) -> ::std::borrow::Cow<'_, str> {
                $plural.into()
            }
            $(
            fn metadata_api() -> bool {
                $metadata_only
            }
            )?
            fn meta(&self) -> &::kube::api::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ::kube::api::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(super) use resource;
