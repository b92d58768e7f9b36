//! `envoy.service.discovery.v3`: the delta protocol.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaRequest {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(string, tag = "2")]
    pub type_url: String,
    #[prost(string, repeated, tag = "3")]
    pub subscribe: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub unsubscribe: Vec<String>,
    #[prost(map = "string, string", tag = "5")]
    pub initial_versions: HashMap<String, String>,
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Its presence makes a refusal: clients send it with the code 0.
    #[prost(message, optional, tag = "7")]
    pub error: Option<ErrorDetail>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ErrorDetail {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaResponse {
    #[prost(string, tag = "1")]
    pub system_version: String,
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Named>,
    #[prost(string, tag = "4")]
    pub type_url: String,
    #[prost(string, tag = "5")]
    pub nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub removed: Vec<String>,
}

/// `Resource`: a resource under a name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Named {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, repeated, tag = "4")]
    pub aliases: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Struct>,
}

/// `google.protobuf.Struct`, of which only strings matter here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    #[prost(string, optional, tag = "3")]
    pub string: Option<String>,
}

impl Node {
    /// With these metadata, an empty one left out.
    pub fn new(id: String, metadata: &[(&str, &str)]) -> Self {
        let said = metadata.iter().filter(|(_, value)| !value.is_empty());
        let fields = said.map(|(name, value)| {
            let string = Some((*value).to_owned());
            ((*name).to_owned(), Value { string })
        });
        Self {
            id,
            metadata: Some(Struct {
                fields: fields.collect(),
            }),
        }
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.metadata.as_ref()?.fields.get(name)?.string.as_deref()
    }
}
