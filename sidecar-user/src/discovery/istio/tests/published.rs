//! The inputs and outputs of Istio's own tests of the conversion for ztunnel, in `published.json`: those of
//! github.com/istio/istio, pilot/pkg/serviceregistry/ambient/testdata at 86c9f01f, under the Apache License 2.0. YAML is JSON there,
//! and an address with its length is text.

use ipnet::IpNet;

use super::*;
use crate::discovery::istio::peer::strict_name;
use crate::model::authorization::{Action, Condition, Match, ServiceAccount, StringMatch};

#[test]
fn objects_become_what_istios_own_tests_expect() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("published.json")).unwrap();
    assert_eq!(cases.len(), 22);
    for case in cases {
        let mut policies = IstioPolicies::new(ROOT);
        for object in case["objects"].as_array().unwrap().clone() {
            match object["kind"].as_str().unwrap() {
                "AuthorizationPolicy" => drop(policies.authorization(Change::Applied(authorization(object)))),
                _ => drop(policies.peer(Change::Applied(peer(object)))),
            }
        }
        let static_strict = strict_name(ROOT);
        let mut served = policies
            .served
            .values()
            .filter(|policy| policy.name != static_strict);
        let found = served.next().map_or(Value::Null, written);
        assert_eq!(found, case["policy"], "{}", case["name"]);
        assert!(served.next().is_none(), "{}", case["name"]);
    }
}

/// As Istio's YAML has it: what is the default is not there.
fn written(policy: &Policy) -> Value {
    let mut all = json!({"name": *policy.name.name});
    let fields = all.as_object_mut().unwrap();
    let groups: Vec<Value> = policy
        .rules
        .iter()
        .map(|rule| {
            let rules = rule.clauses.iter().map(|clause| {
                let matches: Vec<Value> = clause.matches.iter().map(one).collect();
                json!({"matches": matches})
            });
            json!({"rules": rules.collect::<Vec<_>>()})
        })
        .collect();
    fields.insert("groups".into(), groups.into());
    if !policy.name.namespace.is_empty() {
        fields.insert("namespace".into(), (&*policy.name.namespace).into());
    }
    if policy.action == Action::Deny {
        fields.insert("action".into(), "DENY".into());
    }
    match policy.scope {
        Scope::Global => {}
        Scope::Namespace => drop(fields.insert("scope".into(), "NAMESPACE".into())),
        Scope::WorkloadSelector => drop(fields.insert("scope".into(), "WORKLOAD_SELECTOR".into())),
    }
    all
}

fn one(m: &Match) -> Value {
    let mut fields = serde_json::Map::new();
    let mut add = |name: &str, negated: &str, lists: [Vec<Value>; 2]| {
        let [any_of, none_of] = lists;
        for (name, list) in [(name, any_of), (negated, none_of)] {
            if !list.is_empty() {
                fields.insert(name.into(), list.into());
            }
        }
    };
    add("namespaces", "notNamespaces", lists(&m.namespaces, text));
    add(
        "serviceAccounts",
        "notServiceAccounts",
        lists(&m.service_accounts, account),
    );
    add("principals", "notPrincipals", lists(&m.principals, text));
    add("sourceIps", "notSourceIps", lists(&m.source_ips, net));
    add(
        "destinationIps",
        "notDestinationIps",
        lists(&m.destination_ips, net),
    );
    add(
        "destinationPorts",
        "notDestinationPorts",
        lists(&m.destination_ports, |port| (*port).into()),
    );
    fields.into()
}

fn lists<T>(condition: &Condition<T>, written: impl Fn(&T) -> Value) -> [Vec<Value>; 2] {
    [&condition.any_of, &condition.none_of].map(|list| list.iter().map(&written).collect())
}

fn text(text: &StringMatch) -> Value {
    match text {
        StringMatch::Exact(text) => json!({"exact": text}),
        StringMatch::Prefix(text) => json!({"prefix": text}),
        StringMatch::Suffix(text) => json!({"suffix": text}),
        StringMatch::Presence => json!({"presence": {}}),
    }
}

fn account(account: &ServiceAccount) -> Value {
    json!({"namespace": account.namespace, "serviceAccount": account.name})
}

fn net(net: &IpNet) -> Value {
    net.to_string().into()
}
