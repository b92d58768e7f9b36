//! AuthorizationPolicies: what is left out, and that nobody is let in by it.

use super::*;
use crate::model::authorization::{Action, Match};

const HTTP: &str = "rules about HTTP need a proxy that reads it";

/// Which of its rules can apply.
fn effective(policy: &Policy) -> Vec<bool> {
    let clause = |matches: &[Match]| matches.iter().any(|m| !m.is_empty());
    let rules = policy.rules.iter();
    rules
        .map(|rule| rule.clauses.iter().all(|c| clause(&c.matches)))
        .collect()
}

#[test]
fn an_allow_rule_with_what_is_not_read_is_left_out_and_the_others_stay() {
    let (policy, told) = convert(json!({"rules": [
        {"from": [{"source": {"requestPrincipals": ["example.com/sub-1"]}}],
         "to": [{"operation": {"methods": ["GET"]}}],
         "when": [{"key": "request.auth.presenter", "values": ["presenter.example.com"]}]},
        {"from": [{"source": {"principals": ["td/ns/n/sa/a"]}}]},
    ]}));
    assert_eq!(effective(&policy.unwrap()), [true]);
    assert_eq!(
        told,
        [format!(
            "AuthorizationPolicy n/p: rules with what is not read here (methods, request.auth.presenter, requestPrincipals) are \
         left out, so it allows less than it says; {HTTP}"
        )]
    );
}

#[test]
fn an_allow_policy_whose_rules_are_all_left_out_lets_nobody_in() {
    let (policy, _) = convert(json!({"rules": [{"to": [{"operation": {"paths": ["/a"]}}]}]}));
    let policy = policy.unwrap();
    assert_eq!((policy.action, policy.rules.len()), (Action::Allow, 0));
}

/// Istio's cases of the same name.
#[test]
fn a_deny_policy_is_enforced_without_what_is_not_read_or_has_no_effect_and_either_is_told() {
    let bar = json!({"principals": ["cluster.local/ns/foo/sa/bar"]});
    let http = json!({"notRequestPrincipals": ["example.com/sub-1"]});
    let mixed =
        json!({"principals": ["cluster.local/ns/foo/sa/bar"], "notRequestPrincipals": ["example.com/sub-1"]});
    let from = |source: &Value| json!([{"source": source}]);
    let more = |found: &str| {
        Some(format!(
            "it is enforced without what is not read here ({found}), so it denies more than it says; {HTTP}"
        ))
    };
    let nothing = |found: &str| {
        Some(format!(
            "without what is not read here ({found}) no rule can deny, so it has no effect; {HTTP}"
        ))
    };
    for (rules, applies, wanted) in [
        (json!([{"from": from(&bar)}]), vec![true], None),
        (
            json!([{"from": from(&http)}]),
            vec![false],
            nothing("notRequestPrincipals"),
        ),
        (
            json!([{"from": from(&mixed)}]),
            vec![true],
            more("notRequestPrincipals"),
        ),
        (
            json!([{"from": from(&http)}, {"from": from(&bar)}]),
            vec![false, true],
            more("notRequestPrincipals"),
        ),
        (
            json!([{}, {"from": from(&http)}]),
            vec![true, false],
            more("notRequestPrincipals"),
        ),
        (
            json!([{"from": from(&bar), "when": [{"key": "request.headers[x-token]", "values": ["secret"]}]}]),
            vec![false],
            nothing("request.headers[x-token]"),
        ),
        (
            json!([{"from": from(&bar), "to": [{"operation": {"methods": ["GET"]}}]}]),
            vec![false],
            nothing("methods"),
        ),
    ] {
        let (policy, told) = convert(json!({"action": "DENY", "rules": rules}));
        let policy = policy.unwrap();
        assert_eq!(
            (policy.action, effective(&policy)),
            (Action::Deny, applies),
            "{rules}"
        );
        let wanted: Vec<String> = wanted
            .map(|what| format!("AuthorizationPolicy n/p: {what}"))
            .into_iter()
            .collect();
        assert_eq!(told, wanted, "{rules}");
    }
}

/// Istio refuses such values when they are written. Nobody does where only its definitions are installed.
#[test]
fn a_value_that_cannot_be_read_lets_nobody_in() {
    let source = |source: Value| json!([{"from": [{"source": source}]}]);
    let allow = |rules: Value| convert(json!({"rules": rules})).0.unwrap().rules.len();
    assert_eq!(
        allow(source(
            json!({"ipBlocks": ["10.0.0.0/8", "nonsense"], "principals": ["a"]})
        )),
        1,
        "for fewer"
    );
    assert_eq!(
        allow(source(json!({"ipBlocks": ["nonsense"], "principals": ["a"]}))),
        0,
        "for everybody"
    );
    assert_eq!(
        allow(source(json!({"notIpBlocks": ["10.0.0.0/8", "nonsense"]}))),
        0,
        "for one more"
    );
    assert_eq!(allow(json!([{"to": [{"operation": {"ports": ["http"]}}]}])), 0);

    let deny = source(json!({"notIpBlocks": ["nonsense"], "principals": ["a"]}));
    let (policy, told) = convert(json!({"action": "DENY", "rules": deny}));
    assert_eq!(effective(&policy.unwrap()), [true], "for everybody");
    assert!(
        told[0].contains("(the IP block `nonsense`)") && told[0].contains("denies more"),
        "{told:?}"
    );
}

#[test]
fn a_field_of_a_later_version_lets_nobody_in() {
    for rule in [
        json!({"from": [{"source": {"trustDomains": ["td"]}}]}),
        json!({"from": [{"peer": {"name": "a"}}]}),
        json!({"to": [{"operation": {"protocols": ["UDP"]}}]}),
        json!({"unless": [{"key": "a"}]}),
        json!({"when": [{"key": "source.trustDomain", "values": ["td"]}]}),
    ] {
        let (policy, told) = convert(json!({"rules": [rule]}));
        assert_eq!(policy.unwrap().rules, []);
        assert_eq!(told.len(), 1);
    }
}

#[test]
fn a_policy_that_cannot_be_read_lets_nobody_in() {
    let (policy, told) =
        convert(json!({"action": "DENY", "selector": {"matchLabels": {"a": "b"}}, "rules": 7}));
    let policy = policy.unwrap();
    assert_eq!(
        (policy.action, policy.scope, policy.rules.len()),
        (Action::Allow, Scope::Namespace, 0)
    );
    assert!(
        told[0].contains("cannot be read") && told[0].contains("lets nobody in"),
        "{told:?}"
    );
}

#[test]
fn what_is_not_for_a_workloads_own_proxy_is_refused_visibly() {
    for (spec, words) in [
        (
            json!({"action": "AUDIT"}),
            "the action AUDIT is not supported, so nothing of it is enforced",
        ),
        (
            json!({"action": "CUSTOM", "provider": {"name": "x"}}),
            "the action CUSTOM is not supported",
        ),
        (
            json!({"targetRef": {"kind": "Service", "name": "a"}}),
            "it is for a waypoint",
        ),
        (
            json!({"targetRefs": [{"kind": "Gateway", "name": "a"}], "action": "DENY"}),
            "it is for a waypoint",
        ),
    ] {
        let (policy, told) = convert(spec);
        assert_eq!(policy, None);
        assert!(told[0].contains(words), "{told:?}");
    }
}

#[test]
fn a_condition_on_the_service_account_is_one_on_the_identity() {
    let (policy, told) = convert(json!({"rules": [
        {"when": [{"key": "source.serviceAccount", "values": ["a", "m/b"], "notValues": ["c"]}]}]}));
    let accounts = &policy.unwrap().rules[0].clauses[0].matches[0].service_accounts;
    let name = |account: &crate::model::authorization::ServiceAccount| {
        format!("{}/{}", account.namespace, account.name)
    };
    assert_eq!(
        accounts.any_of.iter().map(name).collect::<Vec<_>>(),
        ["n/a", "m/b"]
    );
    assert_eq!(accounts.none_of.iter().map(name).collect::<Vec<_>>(), ["n/c"]);
    assert!(told.is_empty());
}

#[test]
fn a_dry_run_is_what_the_annotation_says_as_go_reads_it() {
    for (value, dry_run, told) in [
        ("true", true, 0),
        ("1", true, 0),
        ("FALSE", false, 0),
        ("", false, 0),
        ("yes", false, 1),
    ] {
        let mut policies = IstioPolicies::new(ROOT);
        let object =
            json!({"metadata": {"name": "p", "namespace": "n", "annotations": {"istio.io/dry-run": value}}});
        let changed = policies.authorization(Change::Applied(authorization(object)));
        assert_eq!(changed.put[0].dry_run, dry_run, "{value}");
        assert_eq!(policies.problems().len(), told, "{value}");
    }
}

#[test]
fn who_is_meant_depends_on_the_selector_and_the_namespace() {
    let at = |namespace: &str, selector: Value| {
        let mut policies = IstioPolicies::new(ROOT);
        let object =
            json!({"metadata": {"name": "p", "namespace": namespace}, "spec": {"selector": selector}});
        let changed = policies.authorization(Change::Applied(authorization(object)));
        let names =
            |namespace: &str, app: &str| policies.names_for(namespace, &labels(&[("app", app)])).len();
        (
            changed.put[0].scope,
            [names("n", "a"), names("n", "b"), names("m", "a")],
        )
    };
    let app_a = json!({"matchLabels": {"app": "a"}});
    assert_eq!(at("n", Value::Null), (Scope::Namespace, [0, 0, 0]));
    assert_eq!(at(ROOT, Value::Null), (Scope::Global, [0, 0, 0]));
    assert_eq!(at("n", app_a.clone()), (Scope::WorkloadSelector, [1, 0, 0]));
    assert_eq!(
        at(ROOT, app_a),
        (Scope::WorkloadSelector, [1, 0, 1]),
        "of every namespace"
    );
    assert_eq!(
        at("n", json!({})),
        (Scope::WorkloadSelector, [1, 1, 0]),
        "all of the namespace"
    );
}

#[test]
fn a_principal_that_nobody_has_is_told() {
    let spelled = ["spiffe://td/ns/n/sa/a"];
    for rule in [
        json!({"from": [{"source": {"principals": spelled}}]}),
        json!({"from": [{"source": {"notPrincipals": spelled}}]}),
        json!({"when": [{"key": "source.principal", "values": spelled}]}),
    ] {
        let (_, told) = convert(json!({"action": "DENY", "rules": [rule]}));
        assert_eq!(
            told,
            [
                "AuthorizationPolicy n/p: nobody has the principal `spiffe://td/ns/n/sa/a`; write it without spiffe://"
            ]
        );
    }
}
