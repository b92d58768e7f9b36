//! What is said of policies, read as users write them.

use super::super::{Registry, parse};
use crate::model::Snapshot;

fn read(action: &str, rules: &str) -> Registry {
    let text = format!(
        "workloads: []\npolicies:\n- {{name: p, namespace: n, scope: Namespace, action: {action}, rules: {rules}}}\n"
    );
    parse(&text, &Snapshot::default()).unwrap_or_else(|problems| panic!("{rules}: {problems}"))
}

fn warnings(action: &str, rules: &str) -> Vec<String> {
    let warnings = read(action, rules).warnings.into_iter();
    warnings.map(|w| format!("{}: {}", w.field, w.what)).collect()
}

#[test]
fn what_can_never_match_is_told() {
    for (m, part) in [
        ("{}", "an empty match never matches"),
        (
            "{destinationPorts: [80], notDestinationPorts: [80, 81]}",
            "`destinationPorts`",
        ),
        (
            "{sourceIps: [10.1.0.0/16], notSourceIps: [10.0.0.0/8]}",
            "`sourceIps`",
        ),
        (
            "{destinationIps: [::1/128], notDestinationIps: [::/0]}",
            "`destinationIps`",
        ),
        (
            "{principals: [!Exact td/ns/n/sa/a], notPrincipals: [!Suffix /sa/a]}",
            "`principals`",
        ),
        (
            "{namespaces: [!Prefix kube-], notNamespaces: [!Prefix kube]}",
            "`namespaces`",
        ),
        (
            "{serviceAccounts: [{namespace: n, serviceAccount: a}], \
              notServiceAccounts: [{namespace: n, serviceAccount: a}]}",
            "`serviceAccounts`",
        ),
        (
            "{namespaces: [!Exact n], notPrincipals: [!Presence []]}",
            "rules every identity out",
        ),
        (
            "{namespaces: [!Exact m], principals: [!Exact td/ns/n/sa/a]}",
            "`namespaces` and `principals`",
        ),
        (
            "{namespaces: [!Exact m], serviceAccounts: [{namespace: n, serviceAccount: a}]}",
            "`namespaces` and `serviceAccounts`",
        ),
        (
            "{serviceAccounts: [{namespace: n, serviceAccount: b}], principals: [!Exact td/ns/n/sa/a]}",
            "`serviceAccounts` and `principals`",
        ),
    ] {
        for action in ["Allow", "Deny"] {
            let told = warnings(action, &format!("[[[{m}]]]"));
            assert!(
                told.iter()
                    .any(|w| w.starts_with("policies[0].rules[0][0][0]: ") && w.contains(part)),
                "{action} {m}: {told:?}"
            );
            let rule = "policies[0].rules[0]: this rule never applies: one of its clauses never does";
            assert!(told.iter().any(|w| w == rule), "{action} {m}: {told:?}");
        }
    }
}

#[test]
fn what_can_match_is_not_complained_of() {
    for rules in [
        "[[]]",
        "[[[]]]",
        "[[[{destinationPorts: [80, 81], notDestinationPorts: [80]}]]]",
        "[[[{sourceIps: [10.0.0.0/8], notSourceIps: [10.1.0.0/16]}]]]",
        "[[[{principals: [!Prefix td/ns/n/], notPrincipals: [!Exact td/ns/n/sa/a]}]]]",
        "[[[{namespaces: [!Exact n, !Exact m], principals: [!Exact td/ns/n/sa/a]}]]]",
        "[[[{destinationPorts: [80, 81]}], [{destinationPorts: [81]}, {sourceIps: [10.0.0.0/8]}]]]",
        "[[[{principals: [!Presence []], notNamespaces: [!Exact n]}]]]",
    ] {
        for action in ["Allow", "Deny"] {
            assert_eq!(warnings(action, rules), [""; 0], "{action} {rules}");
        }
    }
}

#[test]
fn a_deny_without_rules_is_told_and_an_allow_without_lets_nobody_in_on_purpose() {
    assert_eq!(
        warnings("Deny", "[]"),
        ["policies[0].rules: a Deny without rules never applies, so it denies nobody"]
    );
    assert_eq!(warnings("Allow", "[]"), [""; 0]);
}

#[test]
fn clauses_that_never_hold_together_are_told() {
    let told = warnings(
        "Deny",
        "[[[{destinationPorts: [80]}], [{destinationPorts: [81]}]]]",
    );
    assert_eq!(
        told,
        ["policies[0].rules[0]: this rule never applies: its clauses ask for different `destinationPorts`"]
    );
}

#[test]
fn an_allow_whose_negation_lets_plaintext_in_is_told() {
    for rules in [
        "[[[{notPrincipals: [!Exact td/ns/n/sa/a]}]]]",
        "[[[{notNamespaces: [!Exact n]}]]]",
        "[[[{notServiceAccounts: [{namespace: n, serviceAccount: a}]}], [{destinationPorts: [80]}]]]",
    ] {
        let told = warnings("Allow", rules);
        assert_eq!(told.len(), 1, "{rules}: {told:?}");
        assert!(told[0].contains("this lets it in"), "{told:?}");
        assert_eq!(warnings("Deny", rules), [""; 0], "{rules}");
    }
    // Another clause of the rule keeps it out.
    let rules = "[[[{notNamespaces: [!Exact n]}], [{principals: [!Prefix td/]}]]]";
    assert_eq!(warnings("Allow", rules), [""; 0]);
}

#[test]
fn texts_that_fit_nothing_and_lists_without_items_are_told() {
    for (m, part) in [
        ("{principals: [!Exact td/ns/n]}", "the path is not /ns/"),
        (
            "{principals: [!Prefix \"td:1/\"]}",
            "no identity has such a character",
        ),
        ("{namespaces: [!Exact n/m]}", "no namespace has such a name"),
        (
            "{principals: [], destinationPorts: [80]}",
            "an empty list is no condition",
        ),
    ] {
        let told = warnings("Deny", &format!("[[[{m}]]]"));
        assert!(told.iter().any(|w| w.contains(part)), "{m}: {told:?}");
    }
}

#[test]
fn what_would_silently_never_match_is_refused() {
    for (m, part) in [
        ("{namespaces: [!Prefix \"\"]}", "an empty text says nothing"),
        ("{namespaces: [!Exact \"\"]}", "an empty text says nothing"),
        ("{principals: [!Suffix \"\"]}", "an empty text says nothing"),
        (
            "{principals: [!Exact \"spiffe://td/ns/n/sa/a\"]}",
            "write \"td/ns/n/sa/a\"",
        ),
        (
            "{principals: [!Suffix \"spiffe://td/ns/n/sa/a\"]}",
            "write \"td/ns/n/sa/a\"",
        ),
        (
            "{sourceIps: [\"::ffff:10.0.0.0/95\"]}",
            "wider than all v4-mapped addresses",
        ),
        (
            "{serviceAccounts: [{namespace: \"\", serviceAccount: a}]}",
            "this is empty",
        ),
    ] {
        let text = format!(
            "workloads: []\npolicies:\n- {{name: p, namespace: n, scope: Global, action: Deny, rules: [[[{m}]]]}}\n"
        );
        let error = parse(&text, &Snapshot::default()).expect_err(m).to_string();
        assert!(error.contains(part), "{m}: {error}");
    }
}

#[test]
fn a_v4_mapped_network_is_one_of_ipv4() {
    let registry = read(
        "Deny",
        "[[[{sourceIps: [\"::ffff:10.0.0.0/104\", \"fd00::/8\", \"::/0\"]}]]]",
    );
    let policy = registry.snapshot.policies_in("n").all().next().unwrap();
    let nets = &policy.rules[0].clauses[0].matches[0].source_ips.any_of;
    let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.0.0.0/8", "fd00::/8", "::/0"]);
}

#[test]
fn policies_that_nobody_names_and_workloads_that_nobody_finds_are_told() {
    let text = "workloads:\n\
                - {uid: x, namespace: n, workloadIps: [10.0.0.1], networkMode: HostNetwork, authorizationPolicies: [n/used]}\n\
                - {name: b, namespace: n, workloadIps: [10.0.0.2], authorizationPolicies: [n/wide]}\n\
                policies:\n\
                - {name: used, namespace: n, scope: WorkloadSelector, action: Deny, rules: [[]]}\n\
                - {name: idle, namespace: n, scope: WorkloadSelector, action: Deny, rules: [[]]}\n\
                - {name: wide, namespace: n, scope: Namespace, action: Deny, rules: [[]]}\n";
    let registry = parse(text, &Snapshot::default()).unwrap();
    let told: Vec<String> = registry.warnings.iter().map(ToString::to_string).collect();
    for part in [
        "finds the policies of its workload by the name",
        "`n/wide` selects no single workloads, so every connection to this workload is denied",
        "no workload names this policy",
    ] {
        assert!(told.iter().any(|w| w.contains(part)), "{part}: {told:?}");
    }
    assert_eq!(told.len(), 3, "{told:?}");
}
