//! Authorization policies as values: who may connect to whom. What they decide is `policy/authorization.rs`.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

/// `namespace/name`, the registry's primary key of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub name: PolicyName,
    pub scope: Scope,
    pub action: Action,
    /// It applies when any of these does.
    pub rules: Vec<Rule>,
    /// Its verdict is told, not obeyed.
    pub dry_run: bool,
}

/// Whose connections a policy looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Global,
    /// Every workload of its namespace.
    Namespace,
    /// The workloads that name it.
    WorkloadSelector,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    Deny,
}

/// Applies when all of its clauses do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub clauses: Vec<Clause>,
}

/// Applies when any of its matches does, or when it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    pub matches: Vec<Match>,
}

/// Conditions on one connection. All that are given must hold; with none given it never matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    pub namespaces: Condition<StringMatch>,
    pub service_accounts: Condition<ServiceAccount>,
    /// Written without `spiffe://`.
    pub principals: Condition<StringMatch>,
    pub source_ips: Condition<IpNet>,
    pub destination_ips: Condition<IpNet>,
    pub destination_ports: Condition<u16>,
}

/// Holds when any of `any_of` fits (or it is empty) and none of `none_of` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition<T> {
    pub any_of: Vec<T>,
    pub none_of: Vec<T>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
    /// Anything but the empty string.
    Presence,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    pub namespace: String,
    pub name: String,
}

impl Policy {
    pub fn asks_source_ips(&self) -> bool {
        self.asks(|m| !m.source_ips.is_empty())
    }

    pub fn asks_destination_ports(&self) -> bool {
        self.asks(|m| !m.destination_ports.is_empty())
    }

    fn asks(&self, what: impl FnMut(&Match) -> bool) -> bool {
        let clauses = self.rules.iter().flat_map(|rule| &rule.clauses);
        clauses.flat_map(|clause| &clause.matches).any(what)
    }
}

impl Match {
    /// Says nothing, so it matches nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl<T> Condition<T> {
    pub fn is_empty(&self) -> bool {
        self.any_of.is_empty() && self.none_of.is_empty()
    }

    pub fn holds(&self, fits: impl Fn(&T) -> bool) -> bool {
        (self.any_of.is_empty() || self.any_of.iter().any(&fits)) && !self.none_of.iter().any(&fits)
    }
}

impl<T> Default for Condition<T> {
    fn default() -> Self {
        Self {
            any_of: Vec::new(),
            none_of: Vec::new(),
        }
    }
}

impl StringMatch {
    pub fn fits(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => value == exact,
            Self::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => value.ends_with(suffix.as_str()),
            Self::Presence => !value.is_empty(),
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
