//! The objects of `security.istio.io` as values: whom an AuthorizationPolicy lets in, and where a PeerAuthentication demands
//! mutual TLS. What they mean is `discovery/istio`.
//!
//! An object with a field of another type than this version knows is still an object, with an error in the place of its
//! spec: were it no object, a list with it would be none, and nothing would be known of the others.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    pub meta: IstioMeta,
    /// An error says which field cannot be read.
    pub spec: Result<AuthorizationSpec, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    pub meta: IstioMeta,
    /// An error says which field cannot be read.
    pub spec: Result<PeerSpec, String>,
}

/// Of an object of Istio's, what decides about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IstioMeta {
    pub namespace: String,
    pub name: String,
    /// RFC 3339 in UTC, so that the older one is the smaller one.
    pub creation_timestamp: String,
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

/// Its lists are as the object has them; what `others` have are the names of fields that are given and not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationSpec {
    pub selector: Option<IstioSelector>,
    /// Empty is `ALLOW`.
    #[serde(deserialize_with = "or_default")]
    pub action: String,
    #[serde(deserialize_with = "or_default")]
    pub rules: Vec<IstioRule>,
    #[serde(flatten, deserialize_with = "given")]
    pub others: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IstioSelector {
    #[serde(deserialize_with = "or_default")]
    pub match_labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IstioRule {
    #[serde(deserialize_with = "or_default")]
    pub from: Vec<IstioFrom>,
    #[serde(deserialize_with = "or_default")]
    pub to: Vec<IstioTo>,
    #[serde(deserialize_with = "or_default")]
    pub when: Vec<IstioWhen>,
    #[serde(flatten, deserialize_with = "given")]
    pub others: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IstioFrom {
    #[serde(deserialize_with = "or_default")]
    pub source: IstioSource,
    #[serde(flatten, deserialize_with = "given")]
    pub others: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IstioTo {
    #[serde(deserialize_with = "or_default")]
    pub operation: IstioOperation,
    #[serde(flatten, deserialize_with = "given")]
    pub others: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IstioSource {
    #[serde(deserialize_with = "or_default")]
    pub principals: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub not_principals: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub namespaces: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub not_namespaces: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub service_accounts: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub not_service_accounts: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub ip_blocks: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub not_ip_blocks: Vec<String>,
    #[serde(flatten, deserialize_with = "given")]
    pub others: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IstioOperation {
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub not_ports: Vec<String>,
    #[serde(flatten, deserialize_with = "given")]
    pub others: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IstioWhen {
    #[serde(deserialize_with = "or_default")]
    pub key: String,
    #[serde(deserialize_with = "or_default")]
    pub values: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub not_values: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerSpec {
    pub selector: Option<IstioSelector>,
    #[serde(deserialize_with = "or_default")]
    pub mtls: MutualTls,
    #[serde(deserialize_with = "or_default")]
    pub port_level_mtls: BTreeMap<String, MutualTls>,
    #[serde(flatten, deserialize_with = "given")]
    pub others: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MutualTls {
    /// Empty is `UNSET`.
    #[serde(deserialize_with = "or_default")]
    pub mode: String,
}

impl<'de> Deserialize<'de> for AuthorizationPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Object::deserialize(deserializer).map(|Object { metadata, spec }| Self {
            meta: metadata,
            spec: read(spec),
        })
    }
}

impl<'de> Deserialize<'de> for PeerAuthentication {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Object::deserialize(deserializer).map(|Object { metadata, spec }| Self {
            meta: metadata,
            spec: read(spec),
        })
    }
}

#[derive(Deserialize)]
struct Object {
    metadata: IstioMeta,
    /// A policy without one is one with an empty one.
    #[serde(default)]
    spec: Option<Value>,
}

fn read<S: DeserializeOwned + Default>(spec: Option<Value>) -> Result<S, String> {
    match spec {
        Some(spec) => serde_json::from_value(spec).map_err(|error| error.to_string()),
        None => Ok(S::default()),
    }
}

/// `null` is what is not given.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// The names of the fields that are left, without those that say nothing.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let all = BTreeMap::<String, Value>::deserialize(from)?;
    let says_something = |value: &Value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    let given = all.into_iter().filter(|(_, value)| says_something(value));
    Ok(given.map(|(name, _)| name).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(spec: Value) -> AuthorizationPolicy {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap()
    }

    #[test]
    fn fields_that_are_not_read_are_named_where_they_say_something() {
        let spec = json!({"rules": [{
            "from": [{"source": {"principals": ["a"], "requestPrincipals": ["b"], "remoteIpBlocks": [], "futureField": null}}],
            "to": [{"operation": {"ports": null, "methods": ["GET"]}, "futureDirection": true}],
            "futureKey": {"a": 1}}], "targetRefs": [{"kind": "Service"}]});
        let spec = policy(spec).spec.unwrap();
        let [rule] = spec.rules.as_slice() else { panic!() };
        assert_eq!(spec.others, ["targetRefs"]);
        assert_eq!(rule.others, ["futureKey"]);
        assert_eq!(rule.from[0].source.principals, ["a"]);
        assert_eq!(rule.from[0].source.others, ["requestPrincipals"]);
        assert_eq!(rule.to[0].others, ["futureDirection"]);
        assert_eq!(rule.to[0].operation.others, ["methods"]);
    }

    #[test]
    fn a_policy_without_a_spec_has_an_empty_one_and_one_that_cannot_be_read_says_why() {
        let bare: AuthorizationPolicy = serde_json::from_value(json!({"metadata": {"name": "p"}})).unwrap();
        assert_eq!(bare.spec, Ok(AuthorizationSpec::default()));
        let unread = policy(json!({"rules": [{"to": [{"operation": {"ports": [80]}}]}]}));
        assert_eq!(unread.meta.name, "p");
        assert!(unread.spec.unwrap_err().contains("expected a string"));
    }
}
