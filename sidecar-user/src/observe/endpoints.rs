//! `/endpoints`: what is asked, and what a proxy answers of a service: who stands behind it, by its registry and its balancer. The
//! contract; what the answer is, the role knows.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::filter::misfit;
use super::labels::{cause, party};
use super::report::rfc3339;
use crate::model::snapshot::DialFailures;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointsQuestion {
    pub sought: Sought,
    /// The port that an application dials; `None`: each that the service has.
    pub port: Option<u16>,
}

/// A service, or an address that may be a service's or a workload's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    Named { namespace: String, hostname: String },
    At(IpAddr),
}

/// Names of closed sets are strings here, so that an older reader understands a newer writer. A field that is not known
/// is `null`, never absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointList {
    /// `namespace/name`, where a node's agent answers; `null` where the pod's own proxy does.
    pub pod: Option<String>,
    /// What was asked for, as this side understands it.
    pub asked: String,
    /// `known`, `not_asked` or `unknown`.
    pub knowledge: Cow<'static, str>,
    /// `knowledge` in words.
    pub summary: String,
    pub service: Option<ServiceReport>,
    pub registry: RegistryReport,
    pub endpoints: Vec<EndpointReport>,
    /// There are more than stand here.
    pub truncated: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReport {
    /// `namespace/hostname`.
    pub name: String,
    pub addresses: Vec<String>,
    pub ports: Vec<u16>,
    /// `any`, `strict`, `failover` or `passthrough`.
    pub balancing: Cow<'static, str>,
    /// What an endpoint has to have in common with the client, the weightiest first.
    pub scopes: Vec<Cow<'static, str>>,
    /// How long a client stays with an endpoint.
    pub affinity_seconds: Option<u64>,
}

/// What the proxy goes by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryReport {
    /// Counts up with each change; 0: it has none yet.
    pub generation: u64,
    /// RFC 3339.
    pub loaded: Option<String>,
    pub age_seconds: f64,
    /// Why there is no newer one.
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointReport {
    /// With the port, where the endpoint serves the one that is asked for.
    pub address: String,
    /// `hbone` or `plain`.
    pub transport: Cow<'static, str>,
    /// The identities that it may prove; empty where none is asked for.
    pub identities: Vec<String>,
    /// The port that applications dial.
    #[serde(default)]
    pub service_port: Option<u16>,
    /// `namespace/name`.
    #[serde(default)]
    pub workload: Option<String>,
    #[serde(default)]
    pub node: Option<String>,
    /// `region/zone/subzone`, as far as it is known.
    #[serde(default)]
    pub locality: Option<String>,
    /// `ready`, `failing`, `standby`, `excluded`, `not_ready` or `no_port`.
    #[serde(default)]
    pub state: Option<Cow<'static, str>>,
    /// Of this proxy.
    #[serde(default)]
    pub open_connections: Option<u32>,
    /// Its weight beside the others.
    #[serde(default)]
    pub capacity: Option<u32>,
    /// How likely the next connection goes there.
    #[serde(default)]
    pub chance: Option<f64>,
    #[serde(default)]
    pub last_failure: Option<DialFailureReport>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DialFailureReport {
    /// In a row.
    pub count: u32,
    /// RFC 3339.
    pub at: String,
    pub by: Cow<'static, str>,
    pub cause: Cow<'static, str>,
    pub detail: String,
}

const WANT: &str = "NAMESPACE/HOSTNAME or ADDRESS, with :PORT for one port of it";
/// RFC 1035 2.3.4; namespaces are shorter.
const LONGEST_NAME: usize = 253;

impl EndpointsQuestion {
    /// An error is a sentence for the caller.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut asked = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "service" => asked = Some(Self::of(&value).ok_or_else(|| misfit(&name, &value, WANT))?),
                _ => {
                    return Err(format!(
                        "unknown parameter `{}`; there is service",
                        name.escape_debug()
                    ));
                }
            }
        }
        asked.ok_or_else(|| format!("`service` is missing: {WANT}"))
    }

    fn of(text: &str) -> Option<Self> {
        if let Ok(at) = text.parse::<SocketAddr>() {
            return Some(Self {
                sought: Sought::At(at.ip().to_canonical()),
                port: Some(at.port()),
            });
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(Self {
                sought: Sought::At(ip.to_canonical()),
                port: None,
            });
        }
        let (namespace, rest) = text.split_once('/')?;
        let (hostname, port) = match rest.split_once(':') {
            Some((hostname, port)) => (hostname, Some(port.parse().ok()?)),
            None => (rest, None),
        };
        let is_name = |name: &str| {
            let is_of_names = |byte: u8| byte.is_ascii_alphanumeric() || b".-_*".contains(&byte);
            !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(is_of_names)
        };
        (is_name(namespace) && is_name(hostname)).then(|| Self {
            sought: Sought::Named {
                namespace: namespace.to_owned(),
                hostname: hostname.to_owned(),
            },
            port,
        })
    }
}

/// As the query has it.
impl fmt::Display for EndpointsQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.sought, self.port) {
            (Sought::At(ip), None) => ip.fmt(f),
            (Sought::At(ip), Some(port)) => SocketAddr::new(*ip, port).fmt(f),
            (Sought::Named { namespace, hostname }, None) => write!(f, "{namespace}/{hostname}"),
            (Sought::Named { namespace, hostname }, Some(port)) => write!(f, "{namespace}/{hostname}:{port}"),
        }
    }
}

impl RegistryReport {
    /// Of a registry that was read then.
    pub fn new(generation: u64, loaded: SystemTime, error: Option<String>, now: SystemTime) -> Self {
        Self {
            generation,
            loaded: (generation > 0).then(|| rfc3339(loaded)),
            age_seconds: now.duration_since(loaded).unwrap_or_default().as_secs_f64(),
            error,
        }
    }
}

impl DialFailureReport {
    pub fn new(failures: &DialFailures) -> Self {
        let outcome = failures.last.outcome;
        Self {
            count: failures.count,
            at: rfc3339(failures.at),
            by: party(outcome.by).into(),
            cause: cause(outcome.cause).into(),
            detail: failures.last.detail.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_or_an_address_of_it() {
        for (query, again) in [
            (
                "service=demo%2Fweb.demo.svc.cluster.local",
                "demo/web.demo.svc.cluster.local",
            ),
            ("service=demo/web:80", "demo/web:80"),
            ("service=10.0.0.1:80", "10.0.0.1:80"),
            ("service=[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("service=[fd00::1]:80", "[fd00::1]:80"),
            ("service=fd00::1", "fd00::1"),
        ] {
            assert_eq!(EndpointsQuestion::parse(query).unwrap().to_string(), again);
        }
    }

    #[test]
    fn a_wrong_question_is_answered_with_what_is_right() {
        for query in [
            "",
            "service=",
            "service=web",
            "service=demo/",
            "service=/web",
            "service=demo/web:x",
            "service=demo/web:65536",
            "service=10.0.0.1:",
            "service=demo/a%0Ab",
            "name=demo/web",
        ] {
            let error = EndpointsQuestion::parse(query).unwrap_err();
            assert!(
                error.contains("service") && !error.contains('\n'),
                "{query}: {error}"
            );
        }
    }
}
