//! What policies decide, fact by fact. `oracle.rs` compares them with a slow reading of the same rules.

use std::sync::Arc;

use super::*;
use crate::model::authorization::{Condition, Scope, ServiceAccount, StringMatch};

fn name(name: &str) -> PolicyName {
    PolicyName {
        namespace: "t".into(),
        name: name.into(),
    }
}

fn by(policy: &str) -> Option<By> {
    Some(By {
        policy: name(policy),
        rule: 0,
    })
}

fn policy(action: Action, matches: Vec<Match>) -> Arc<Policy> {
    Arc::new(Policy {
        name: name(if action == Action::Allow { "allow" } else { "deny" }),
        scope: Scope::Namespace,
        action,
        rules: vec![Rule {
            clauses: vec![Clause { matches }],
        }],
        dry_run: false,
    })
}

fn only<T>(value: T) -> Condition<T> {
    Condition {
        any_of: vec![value],
        none_of: vec![],
    }
}

fn none<T>(value: T) -> Condition<T> {
    Condition {
        any_of: vec![],
        none_of: vec![value],
    }
}

fn principal(wanted: StringMatch) -> Match {
    Match {
        principals: only(wanted),
        ..Match::default()
    }
}

fn decide(policies: &[Arc<Policy>], source: Option<&str>) -> Decision {
    let source = source.map(|id| id.parse().unwrap());
    let facts = Facts {
        source: source.as_ref(),
        source_ips: &["10.0.0.1".parse().unwrap()],
        destination: "10.0.0.2:8080".parse().unwrap(),
    };
    let applicable = Applicable {
        namespace: policies,
        ..Applicable::default()
    };
    evaluate(&applicable, &facts)
}

fn allowed(decision: &Decision) -> bool {
    matches!(decision, Decision::Allow(_))
}

const A: Option<&str> = Some("spiffe://td.test/ns/t/sa/a");
const B: Option<&str> = Some("spiffe://td.test/ns/u/sa/b");

#[test]
fn without_policies_everybody_may() {
    assert_eq!(decide(&[], None), Decision::Allow(None));
}

#[test]
fn an_allow_policy_keeps_all_others_out() {
    let policies = [policy(
        Action::Allow,
        vec![principal(StringMatch::Exact("td.test/ns/t/sa/a".into()))],
    )];
    assert_eq!(decide(&policies, A), Decision::Allow(by("allow")));
    assert_eq!(decide(&policies, B), Decision::Deny(Denial::NotAllowed));
    assert_eq!(decide(&policies, None), Decision::Deny(Denial::NotAllowed));
}

#[test]
fn deny_wins_over_allow() {
    let policies = [
        policy(Action::Allow, vec![principal(StringMatch::Presence)]),
        policy(Action::Deny, vec![principal(StringMatch::Suffix("/sa/b".into()))]),
    ];
    assert!(allowed(&decide(&policies, A)));
    assert_eq!(
        decide(&policies, B),
        Decision::Deny(Denial::Denied(by("deny").unwrap()))
    );
}

#[test]
fn a_negation_holds_for_a_source_without_identity() {
    let everybody_but_a = Match {
        principals: none(StringMatch::Prefix("td.test/ns/t/".into())),
        ..Match::default()
    };
    let policies = [policy(Action::Deny, vec![everybody_but_a])];
    assert!(allowed(&decide(&policies, A)));
    assert!(!allowed(&decide(&policies, B)));
    assert!(!allowed(&decide(&policies, None)));
}

#[test]
fn an_empty_match_never_matches_and_an_empty_clause_always_does() {
    assert!(allowed(&decide(
        &[policy(Action::Deny, vec![Match::default()])],
        A
    )));
    assert!(!allowed(&decide(&[policy(Action::Deny, vec![])], A)));
}

#[test]
fn a_policy_without_rules_never_matches() {
    let mut allow = (*policy(Action::Allow, vec![])).clone();
    allow.rules.clear();
    assert_eq!(decide(&[Arc::new(allow)], A), Decision::Deny(Denial::NotAllowed));
}

#[test]
fn all_conditions_of_a_match_and_all_clauses_of_a_rule_must_hold() {
    let namespace = Match {
        namespaces: only(StringMatch::Exact("t".into())),
        destination_ports: only(8080),
        ..Match::default()
    };
    let account = Match {
        service_accounts: only(ServiceAccount {
            namespace: "t".into(),
            name: "a".into(),
        }),
        ..Match::default()
    };
    let other_port = Match {
        destination_ports: only(9090),
        ..namespace.clone()
    };
    assert!(allowed(&decide(
        &[policy(Action::Allow, vec![namespace.clone()])],
        A
    )));
    assert!(!allowed(&decide(
        &[policy(Action::Allow, vec![namespace.clone()])],
        B
    )));
    assert!(!allowed(&decide(
        &[policy(Action::Allow, vec![other_port.clone()])],
        A
    )));
    let mut both = (*policy(Action::Allow, vec![namespace])).clone();
    both.rules[0].clauses.push(Clause {
        matches: vec![account],
    });
    assert!(allowed(&decide(&[Arc::new(both.clone())], A)));
    both.rules[0].clauses.push(Clause {
        matches: vec![other_port],
    });
    assert!(!allowed(&decide(&[Arc::new(both)], A)));
}

#[test]
fn addresses_match_by_network_in_their_canonical_form() {
    let m = Match {
        source_ips: only("10.0.0.0/24".parse().unwrap()),
        destination_ips: none("192.0.2.0/24".parse().unwrap()),
        ..Match::default()
    };
    let policies = [policy(Action::Allow, vec![m])];
    let applicable = Applicable {
        namespace: &policies,
        ..Applicable::default()
    };
    let decide = |source_ip: &str, destination: &str| {
        let facts = Facts {
            source: None,
            source_ips: &[source_ip.parse().unwrap()],
            destination: destination.parse().unwrap(),
        };
        allowed(&evaluate(&applicable, &facts))
    };
    assert!(decide("::ffff:10.0.0.9", "10.9.9.9:1"));
    assert!(!decide("10.0.1.9", "10.9.9.9:1"));
    assert!(!decide("10.0.0.9", "[::ffff:192.0.2.1]:1"));
}

#[test]
fn an_unknown_policy_denies_everybody() {
    let missing = [name("gone")];
    let applicable = Applicable {
        missing: &missing,
        ..Applicable::default()
    };
    let facts = Facts {
        source: None,
        source_ips: &["10.0.0.1".parse().unwrap()],
        destination: "10.0.0.2:80".parse().unwrap(),
    };
    assert_eq!(
        evaluate(&applicable, &facts),
        Decision::Deny(Denial::UnknownPolicy(name("gone")))
    );
}

#[test]
fn a_dry_run_policy_is_told_and_not_obeyed() {
    let mut deny = (*policy(Action::Deny, vec![])).clone();
    deny.dry_run = true;
    let policies = [Arc::new(deny)];
    assert_eq!(decide(&policies, A), Decision::Allow(None));
    let applicable = Applicable {
        namespace: &policies,
        ..Applicable::default()
    };
    let facts = Facts {
        source: None,
        source_ips: &["10.0.0.1".parse().unwrap()],
        destination: "10.0.0.2:80".parse().unwrap(),
    };
    let rehearsed = rehearse(&applicable, &facts);
    assert_eq!(
        rehearsed,
        Some(Decision::Deny(Denial::Denied(by("deny").unwrap())))
    );
}

#[test]
fn no_positive_condition_holds_for_a_source_without_identity() {
    let anything = [
        StringMatch::Prefix(String::new()),
        StringMatch::Suffix(String::new()),
        StringMatch::Exact(String::new()),
        StringMatch::Presence,
    ];
    for text in anything {
        let namespace = Match {
            namespaces: only(text.clone()),
            ..Match::default()
        };
        for m in [namespace, principal(text.clone())] {
            let policies = [policy(Action::Allow, vec![m])];
            assert_eq!(
                decide(&policies, None),
                Decision::Deny(Denial::NotAllowed),
                "{text:?}"
            );
        }
    }
}

#[test]
fn a_source_is_in_a_network_by_any_of_its_addresses() {
    let of_v4 = |positive: bool| {
        let net = "10.0.0.2/32".parse().unwrap();
        Match {
            source_ips: if positive { only(net) } else { none(net) },
            ..Match::default()
        }
    };
    let both = ["fd00::2".parse().unwrap(), "10.0.0.2".parse().unwrap()];
    let decide = |action, positive, source_ips: &[IpAddr]| {
        let facts = Facts {
            source: None,
            source_ips,
            destination: "10.0.0.3:80".parse().unwrap(),
        };
        let policies = [policy(action, vec![of_v4(positive)])];
        let applicable = Applicable {
            namespace: &policies,
            ..Applicable::default()
        };
        allowed(&evaluate(&applicable, &facts))
    };
    assert!(decide(Action::Allow, true, &both));
    assert!(!decide(Action::Allow, true, &both[..1]));
    assert!(!decide(Action::Deny, true, &both));
    // Neither by the other family into what is closed to it, nor out of what is opened to it.
    assert!(!decide(Action::Allow, false, &both));
    assert!(decide(Action::Deny, false, &both));
}
