//! `istio.security.Authorization`, both ways.

use bytes::Bytes;
use ipnet::IpNet;

use super::parts::{ip, octets, port};
use super::rejected::Rejected;
use crate::model::authorization as model;
use crate::xds::AuthorizationResource;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Authorization {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(int32, tag = "3")]
    scope: i32,
    #[prost(int32, tag = "4")]
    action: i32,
    #[prost(message, repeated, tag = "5")]
    rules: Vec<Rule>,
    #[prost(bool, tag = "6")]
    dry_run: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Rule {
    #[prost(message, repeated, tag = "1")]
    clauses: Vec<Clause>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Clause {
    #[prost(message, repeated, tag = "2")]
    matches: Vec<Match>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Match {
    #[prost(message, repeated, tag = "1")]
    namespaces: Vec<StringMatch>,
    #[prost(message, repeated, tag = "2")]
    not_namespaces: Vec<StringMatch>,
    #[prost(message, repeated, tag = "11")]
    service_accounts: Vec<ServiceAccount>,
    #[prost(message, repeated, tag = "12")]
    not_service_accounts: Vec<ServiceAccount>,
    #[prost(message, repeated, tag = "3")]
    principals: Vec<StringMatch>,
    #[prost(message, repeated, tag = "4")]
    not_principals: Vec<StringMatch>,
    #[prost(message, repeated, tag = "5")]
    source_ips: Vec<Net>,
    #[prost(message, repeated, tag = "6")]
    not_source_ips: Vec<Net>,
    #[prost(message, repeated, tag = "7")]
    destination_ips: Vec<Net>,
    #[prost(message, repeated, tag = "8")]
    not_destination_ips: Vec<Net>,
    #[prost(uint32, repeated, tag = "9")]
    destination_ports: Vec<u32>,
    #[prost(uint32, repeated, tag = "10")]
    not_destination_ports: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StringMatch {
    #[prost(oneof = "How", tags = "1, 2, 3, 4")]
    how: Option<How>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum How {
    #[prost(string, tag = "1")]
    Exact(String),
    #[prost(string, tag = "2")]
    Prefix(String),
    #[prost(string, tag = "3")]
    Suffix(String),
    #[prost(message, tag = "4")]
    Presence(Empty),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct ServiceAccount {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    service_account: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Net {
    #[prost(bytes = "bytes", tag = "1")]
    address: Bytes,
    #[prost(uint32, tag = "2")]
    length: u32,
}

impl From<&AuthorizationResource> for Authorization {
    fn from(policy: &AuthorizationResource) -> Self {
        Self {
            name: policy.name.name.to_string(),
            namespace: policy.name.namespace.to_string(),
            scope: match policy.scope {
                model::Scope::Global => 0,
                model::Scope::Namespace => 1,
                model::Scope::WorkloadSelector => 2,
            },
            action: match policy.action {
                model::Action::Allow => 0,
                model::Action::Deny => 1,
            },
            rules: policy.rules.iter().map(Into::into).collect(),
            dry_run: policy.dry_run,
        }
    }
}

impl From<&model::Rule> for Rule {
    fn from(rule: &model::Rule) -> Self {
        let clauses = rule.clauses.iter().map(|clause| Clause {
            matches: clause.matches.iter().map(Into::into).collect(),
        });
        Self {
            clauses: clauses.collect(),
        }
    }
}

impl From<&model::Match> for Match {
    fn from(of: &model::Match) -> Self {
        fn all<'m, T: 'm, W: From<&'m T>>(values: &'m [T]) -> Vec<W> {
            values.iter().map(W::from).collect()
        }
        Self {
            namespaces: all(&of.namespaces.any_of),
            not_namespaces: all(&of.namespaces.none_of),
            service_accounts: all(&of.service_accounts.any_of),
            not_service_accounts: all(&of.service_accounts.none_of),
            principals: all(&of.principals.any_of),
            not_principals: all(&of.principals.none_of),
            source_ips: all(&of.source_ips.any_of),
            not_source_ips: all(&of.source_ips.none_of),
            destination_ips: all(&of.destination_ips.any_of),
            not_destination_ips: all(&of.destination_ips.none_of),
            destination_ports: of.destination_ports.any_of.iter().map(|p| (*p).into()).collect(),
            not_destination_ports: of.destination_ports.none_of.iter().map(|p| (*p).into()).collect(),
        }
    }
}

impl From<&model::StringMatch> for StringMatch {
    fn from(of: &model::StringMatch) -> Self {
        Self {
            how: Some(match of {
                model::StringMatch::Exact(text) => How::Exact(text.clone()),
                model::StringMatch::Prefix(text) => How::Prefix(text.clone()),
                model::StringMatch::Suffix(text) => How::Suffix(text.clone()),
                model::StringMatch::Presence => How::Presence(Empty {}),
            }),
        }
    }
}

impl From<&model::ServiceAccount> for ServiceAccount {
    fn from(account: &model::ServiceAccount) -> Self {
        Self {
            namespace: account.namespace.clone(),
            service_account: account.name.clone(),
        }
    }
}

impl From<&IpNet> for Net {
    fn from(net: &IpNet) -> Self {
        Self {
            address: octets(net.addr()),
            length: net.prefix_len().into(),
        }
    }
}

impl TryFrom<Authorization> for AuthorizationResource {
    type Error = Rejected;

    fn try_from(policy: Authorization) -> Result<Self, Rejected> {
        if policy.name.is_empty() {
            return Err(Rejected::field("name", "it is empty"));
        }
        Ok(Self {
            name: model::PolicyName {
                namespace: policy.namespace.into(),
                name: policy.name.into(),
            },
            scope: match policy.scope {
                0 => model::Scope::Global,
                1 => model::Scope::Namespace,
                2 => model::Scope::WorkloadSelector,
                other => return Err(Rejected::field("scope", format!("{other} is not known"))),
            },
            action: match policy.action {
                0 => model::Action::Allow,
                1 => model::Action::Deny,
                other => return Err(Rejected::field("action", format!("{other} is not known"))),
            },
            rules: all(policy.rules)?,
            dry_run: policy.dry_run,
        })
    }
}

fn all<W, T: TryFrom<W, Error = Rejected>>(values: Vec<W>) -> Result<Vec<T>, Rejected> {
    values.into_iter().map(T::try_from).collect()
}

impl TryFrom<Rule> for model::Rule {
    type Error = Rejected;

    fn try_from(rule: Rule) -> Result<Self, Rejected> {
        Ok(Self {
            clauses: all(rule.clauses)?,
        })
    }
}

impl TryFrom<Clause> for model::Clause {
    type Error = Rejected;

    fn try_from(clause: Clause) -> Result<Self, Rejected> {
        Ok(Self {
            matches: all(clause.matches)?,
        })
    }
}

impl TryFrom<Match> for model::Match {
    type Error = Rejected;

    fn try_from(of: Match) -> Result<Self, Rejected> {
        fn condition<W, T>(any_of: Vec<W>, none_of: Vec<W>) -> Result<model::Condition<T>, Rejected>
        where
            T: TryFrom<W, Error = Rejected>,
        {
            Ok(model::Condition {
                any_of: all(any_of)?,
                none_of: all(none_of)?,
            })
        }
        let ports = |numbers: Vec<u32>| {
            let ports = numbers
                .into_iter()
                .map(|number| port("destination_ports", number));
            ports.collect::<Result<_, _>>()
        };
        Ok(Self {
            namespaces: condition(of.namespaces, of.not_namespaces)?,
            service_accounts: condition(of.service_accounts, of.not_service_accounts)?,
            principals: condition(of.principals, of.not_principals)?,
            source_ips: nets(of.source_ips, of.not_source_ips)?,
            destination_ips: nets(of.destination_ips, of.not_destination_ips)?,
            destination_ports: model::Condition {
                any_of: ports(of.destination_ports)?,
                none_of: ports(of.not_destination_ports)?,
            },
        })
    }
}

impl TryFrom<StringMatch> for model::StringMatch {
    type Error = Rejected;

    fn try_from(of: StringMatch) -> Result<Self, Rejected> {
        Ok(match of.how {
            Some(How::Exact(text)) => Self::Exact(text),
            Some(How::Prefix(text)) => Self::Prefix(text),
            Some(How::Suffix(text)) => Self::Suffix(text),
            Some(How::Presence(Empty {})) => Self::Presence,
            None => return Err(Rejected::field("match", "it does not say what fits")),
        })
    }
}

impl TryFrom<ServiceAccount> for model::ServiceAccount {
    type Error = Rejected;

    fn try_from(account: ServiceAccount) -> Result<Self, Rejected> {
        Ok(Self {
            namespace: account.namespace,
            name: account.service_account,
        })
    }
}

fn nets(any_of: Vec<Net>, none_of: Vec<Net>) -> Result<model::Condition<IpNet>, Rejected> {
    let all = |nets: Vec<Net>| nets.iter().map(net).collect::<Result<_, _>>();
    Ok(model::Condition {
        any_of: all(any_of)?,
        none_of: all(none_of)?,
    })
}

/// The address of a v4-mapped network is read in its short form, and its length with it.
fn net(net: &Net) -> Result<IpNet, Rejected> {
    const MAPPED_BITS: u32 = 96;
    let address = ip("address", &net.address)?;
    let mapped = address.is_ipv4() && net.address.len() == 16;
    let length = if mapped {
        net.length.checked_sub(MAPPED_BITS)
    } else {
        Some(net.length)
    };
    let length = length.and_then(|length| u8::try_from(length).ok());
    let found = length.and_then(|length| IpNet::new(address, length).ok());
    found.ok_or_else(|| Rejected::field("length", format!("{} is no length of {address}", net.length)))
}
