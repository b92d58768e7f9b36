//! One AuthorizationPolicy becomes one policy of ours, as istiod makes one for ztunnel: what it says about addresses, ports and
//! identities. What else it says never lets anybody in: an ALLOW rule that asks for more than that is left out, and a DENY
//! rule denies without it.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::problem::{Problem, Teller};
use super::values;
use crate::kubernetes::{AuthorizationPolicy, AuthorizationSpec, IstioFrom, IstioRule, IstioTo, IstioWhen};
use crate::model::authorization::{
    Action, Clause, Condition, Match, Policy, PolicyName, Rule, Scope, ServiceAccount, StringMatch,
};

/// `"true"`: the policy is a rehearsal.
const DRY_RUN: &str = "istio.io/dry-run";

const NO_HTTP: &str = "rules about HTTP need a proxy that reads it";
const CORRECT: &str = "correct it, or remove it";

/// `None`: nothing of it is enforced.
pub(super) fn convert(
    object: &AuthorizationPolicy,
    root: &str,
    problems: &mut Vec<Problem>,
) -> Option<Policy> {
    let mut teller = Teller {
        object: format!(
            "AuthorizationPolicy {}/{}",
            object.meta.namespace, object.meta.name
        ),
        problems,
    };
    let spec = match &object.spec {
        Ok(spec) => spec,
        // Nobody knows whom it would deny. Whatever it selects, it is among these.
        Err(error) => {
            teller.tell(
                format!("it cannot be read ({error}), so it lets nobody in"),
                CORRECT,
            );
            return Some(skeleton(object, &AuthorizationSpec::default(), root));
        }
    };
    let action = action(spec, &mut teller)?;
    let dry_run = is_rehearsal(object, &mut teller);
    tell_impossible(spec, &mut teller);
    let mut unread = BTreeSet::new();
    let rules = spec.rules.iter().filter_map(|rule| {
        let mut reader = Reader {
            namespace: &object.meta.namespace,
            unread: BTreeSet::new(),
            is_widened: false,
        };
        let converted = reader.rule(rule);
        let is_kept = action == Action::Deny || !reader.is_widened;
        unread.append(&mut reader.unread);
        is_kept.then_some(converted)
    });
    let policy = Policy {
        action,
        rules: rules.collect(),
        dry_run,
        ..skeleton(object, spec, root)
    };
    tell_unread(&policy, spec, &unread, &mut teller);
    Some(policy)
}

/// `None`: it is one that is not enforced.
fn action(spec: &AuthorizationSpec, teller: &mut Teller<'_>) -> Option<Action> {
    let (targets, others): (Vec<_>, Vec<_>) = spec.others.iter().partition(|name| is_target(name));
    if !targets.is_empty() {
        teller.tell(
            "it is for a waypoint (`targetRefs`), so nothing of it is enforced",
            "select workloads with `selector` to have it enforced by their own proxies",
        );
        return None;
    }
    let action = match &*spec.action {
        "" | "ALLOW" => Action::Allow,
        "DENY" => Action::Deny,
        other => {
            let what = format!("the action {other} is not supported, so nothing of it is enforced");
            teller.tell(what, "write ALLOW or DENY");
            return None;
        }
    };
    if !others.is_empty() {
        let others: Vec<&str> = others.iter().map(|name| name.as_str()).collect();
        let what = format!("`{}` is not known here and changes nothing", others.join("`, `"));
        teller.tell(what, CORRECT);
    }
    Some(action)
}

/// The words that Go's ParseBool knows.
fn is_rehearsal(object: &AuthorizationPolicy, teller: &mut Teller<'_>) -> bool {
    match object.meta.annotations.get(DRY_RUN).map(String::as_str) {
        None | Some("" | "false" | "False" | "FALSE" | "f" | "F" | "0") => false,
        Some("true" | "True" | "TRUE" | "t" | "T" | "1") => true,
        Some(other) => {
            teller.tell(
                format!("the annotation {DRY_RUN} is `{other}`, so the policy is enforced"),
                "write true or false",
            );
            false
        }
    }
}

/// Principals that no source can have.
fn tell_impossible(spec: &AuthorizationSpec, teller: &mut Teller<'_>) {
    let sources = spec
        .rules
        .iter()
        .flat_map(|rule| &rule.from)
        .map(|from| &from.source);
    let listed = sources.flat_map(|source| source.principals.iter().chain(&source.not_principals));
    let conditions = spec.rules.iter().flat_map(|rule| &rule.when);
    let conditions = conditions.filter(|when| when.key == "source.principal");
    let asked = conditions.flat_map(|when| when.values.iter().chain(&when.not_values));
    if let Some(principal) = listed
        .chain(asked)
        .find(|principal| principal.starts_with("spiffe://"))
    {
        teller.tell(
            format!("nobody has the principal `{principal}`"),
            "write it without spiffe://",
        );
    }
}

fn tell_unread(
    policy: &Policy,
    spec: &AuthorizationSpec,
    unread: &BTreeSet<String>,
    teller: &mut Teller<'_>,
) {
    let never_denies =
        policy.action == Action::Deny && !spec.rules.is_empty() && !policy.rules.iter().any(can_apply);
    let found = unread.iter().cloned().collect::<Vec<_>>().join(", ");
    let (what, remedy) = match (policy.action, found.is_empty()) {
        (_, true) if never_denies => (
            "its rules say nothing that could deny, so it has no effect".to_owned(),
            CORRECT,
        ),
        (_, true) => return,
        (Action::Allow, false) => (
            format!(
                "rules with what is not read here ({found}) are left out, so it allows less than it says"
            ),
            NO_HTTP,
        ),
        (Action::Deny, false) if never_denies => (
            format!("without what is not read here ({found}) no rule can deny, so it has no effect"),
            NO_HTTP,
        ),
        (Action::Deny, false) => (
            format!("it is enforced without what is not read here ({found}), so it denies more than it says"),
            NO_HTTP,
        ),
    };
    teller.tell(what, remedy);
}

/// An Allow policy that allows nobody.
fn skeleton(object: &AuthorizationPolicy, spec: &AuthorizationSpec, root: &str) -> Policy {
    Policy {
        name: PolicyName {
            namespace: object.meta.namespace.as_str().into(),
            name: object.meta.name.as_str().into(),
        },
        scope: match spec.selector {
            Some(_) => Scope::WorkloadSelector,
            None if object.meta.namespace == root => Scope::Global,
            None => Scope::Namespace,
        },
        action: Action::Allow,
        rules: Vec::new(),
        dry_run: false,
    }
}

fn is_target(field: &str) -> bool {
    ["targetRef", "targetRefs"].contains(&field)
}

/// A rule without clauses always applies. An empty match never does.
fn can_apply(rule: &Rule) -> bool {
    let can_match = |clause: &Clause| clause.matches.iter().any(|m| !m.is_empty());
    rule.clauses.iter().all(can_match)
}

/// Of one rule.
struct Reader<'p> {
    namespace: &'p str,
    /// The fields and values that are not read.
    unread: BTreeSet<String>,
    /// Without those it would apply to more connections than it says.
    is_widened: bool,
}

impl Reader<'_> {
    fn rule(&mut self, rule: &IstioRule) -> Rule {
        self.skip(&rule.others);
        let to: Vec<Match> = rule.to.iter().map(|to| self.operation(to)).collect();
        let from: Vec<Match> = rule.from.iter().map(|from| self.source(from)).collect();
        let listed = [to, from].into_iter().filter(|matches| !matches.is_empty());
        let mut clauses: Vec<Clause> = listed.map(|matches| Clause { matches }).collect();
        clauses.extend(rule.when.iter().map(|when| Clause {
            matches: vec![self.condition(when)],
        }));
        Rule { clauses }
    }

    fn operation(&mut self, to: &IstioTo) -> Match {
        let operation = &to.operation;
        self.skip(&to.others);
        self.skip(&operation.others);
        Match {
            destination_ports: self.ports(&operation.ports, &operation.not_ports),
            ..Match::default()
        }
    }

    fn source(&mut self, from: &IstioFrom) -> Match {
        let source = &from.source;
        self.skip(&from.others);
        self.skip(&source.others);
        Match {
            namespaces: texts(&source.namespaces, &source.not_namespaces),
            service_accounts: self.accounts(&source.service_accounts, &source.not_service_accounts),
            principals: texts(&source.principals, &source.not_principals),
            source_ips: self.nets(&source.ip_blocks, &source.not_ip_blocks),
            ..Match::default()
        }
    }

    fn condition(&mut self, when: &IstioWhen) -> Match {
        let (values, not_values) = (&when.values, &when.not_values);
        let mut found = Match::default();
        match &*when.key {
            "source.ip" => found.source_ips = self.nets(values, not_values),
            "source.namespace" => found.namespaces = texts(values, not_values),
            "source.principal" => found.principals = texts(values, not_values),
            "source.serviceAccount" => found.service_accounts = self.accounts(values, not_values),
            "destination.ip" => found.destination_ips = self.nets(values, not_values),
            "destination.port" => found.destination_ports = self.ports(values, not_values),
            other => self.skip(&[other.to_owned()]),
        }
        found
    }

    fn accounts(&self, any_of: &[String], none_of: &[String]) -> Condition<ServiceAccount> {
        let read = |values: &[String]| {
            values
                .iter()
                .map(|v| values::account(v, self.namespace))
                .collect()
        };
        Condition {
            any_of: read(any_of),
            none_of: read(none_of),
        }
    }

    fn ports(&mut self, any_of: &[String], none_of: &[String]) -> Condition<u16> {
        self.values(any_of, none_of, "port", values::port)
    }

    fn nets(&mut self, any_of: &[String], none_of: &[String]) -> Condition<IpNet> {
        self.values(any_of, none_of, "IP block", values::net)
    }

    /// Of a list that says whom the rule is for, a value that cannot be read makes the rule one for fewer, unless it was the
    /// last: then the list is none. Of one that says whom it is not for, each makes it one for more.
    fn values<T>(
        &mut self,
        any_of: &[String],
        none_of: &[String],
        kind: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Condition<T> {
        let mut read_all = |values: &[String]| -> Vec<T> {
            let all = values.iter().map(|value| (value, read(value)));
            let known = all.filter_map(|(value, known)| {
                if known.is_none() {
                    self.unread.insert(format!("the {kind} `{value}`"));
                }
                known
            });
            known.collect()
        };
        let condition = Condition {
            any_of: read_all(any_of),
            none_of: read_all(none_of),
        };
        self.is_widened |= condition.any_of.is_empty() && !any_of.is_empty();
        self.is_widened |= condition.none_of.len() < none_of.len();
        condition
    }

    fn skip(&mut self, fields: &[String]) {
        self.is_widened |= !fields.is_empty();
        self.unread.extend(fields.iter().cloned());
    }
}

fn texts(any_of: &[String], none_of: &[String]) -> Condition<StringMatch> {
    let read = |values: &[String]| values.iter().map(|value| values::text(value)).collect();
    Condition {
        any_of: read(any_of),
        none_of: read(none_of),
    }
}
