//! What is said of policies, by built worlds; and that it is what a connection gets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::*;
use crate::discovery::Status;
use crate::model::authorization::{Clause, Condition, Match, Rule, Scope, StringMatch};
use crate::model::snapshot::Serves;
use crate::model::{Locality, TunnelProtocol, Workload};

fn name(name: &str) -> PolicyName {
    PolicyName {
        namespace: "demo".into(),
        name: name.into(),
    }
}

fn policy(called: &str, scope: Scope, action: Action, matches: Match) -> Policy {
    Policy {
        name: name(called),
        scope,
        action,
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![matches],
            }],
        }],
        dry_run: false,
    }
}

fn of<T>(one: T) -> Condition<T> {
    Condition {
        any_of: vec![one],
        none_of: Vec::new(),
    }
}

fn account(account: &str) -> Match {
    let principal = format!("td.test/ns/demo/sa/{account}");
    Match {
        principals: of(StringMatch::Exact(principal)),
        ..Match::default()
    }
}

/// A proxy in front of `server`, which the registry lists with these policies of its own.
fn policies(mode: Mode, all: Vec<Policy>, selected: &[&str]) -> Policies {
    let server = Workload {
        uid: "server".into(),
        name: "server".into(),
        namespace: "demo".into(),
        identity: SpiffeId::new("td.test", "demo", "server").unwrap(),
        addresses: vec![[10, 0, 0, 2].into()],
        protocol: TunnelProtocol::Hbone,
        healthy: true,
        capacity: 1,
        locality: Locality::default(),
        node: String::new(),
    };
    let own = Own {
        name: "server".into(),
        identity: server.identity.clone(),
        addresses: server.addresses.clone(),
        node: String::new(),
    };
    let names = selected.iter().map(|selected| name(selected)).collect();
    let selects = HashMap::from([("server".to_owned(), ("demo".to_owned(), names))]);
    let before = Snapshot::default();
    let world = Snapshot::build(&before, Vec::new(), vec![(server, Serves::new())])
        .with_policies(&before, all, selects);
    let status = Status {
        generation: world.generation,
        loaded: SystemTime::now(),
        failures: 0,
        error: None,
        warnings: Vec::new(),
    };
    Policies {
        own,
        mode,
        feed: Feed {
            snapshots: watch::channel(Arc::new(world)).1,
            status: watch::channel(status).1,
        },
    }
}

/// The verdict and the one who gave it.
fn asked(policies: &Policies, query: &str) -> (String, Option<String>, String) {
    let question = PoliciesQuestion::parse(query).unwrap();
    let verdict = policies.report(&question).unwrap().verdict.unwrap();
    (verdict.result.into_owned(), verdict.policy, verdict.reason)
}

#[test]
fn each_policy_is_told_with_why_it_holds_and_whether_it_applies() {
    let all = vec![
        policy(
            "clients",
            Scope::WorkloadSelector,
            Action::Allow,
            account("client"),
        ),
        policy("not-him", Scope::Namespace, Action::Deny, account("thief")),
        policy(
            "elsewhere",
            Scope::WorkloadSelector,
            Action::Deny,
            account("client"),
        ),
        policy(
            STATIC_STRICT,
            Scope::WorkloadSelector,
            Action::Deny,
            Match {
                principals: Condition {
                    any_of: Vec::new(),
                    none_of: vec![StringMatch::Presence],
                },
                ..Match::default()
            },
        ),
    ];
    let policies = policies(Mode::Permissive, all, &["clients", STATIC_STRICT, "gone"]);
    let question = PoliciesQuestion::parse("from=demo/client&port=80").unwrap();
    let report = policies.report(&question).unwrap();
    let told: Vec<_> = report
        .policies
        .iter()
        .map(|p| (p.name.as_str(), &*p.kind, &*p.action, &*p.scope, p.applies))
        .collect();
    assert_eq!(
        told,
        [
            ("demo/gone", "policy", "unknown", "workload", None),
            (
                "demo/istio_converted_static_strict",
                "peer_authentication",
                "deny",
                "workload",
                None
            ),
            ("demo/not-him", "policy", "deny", "namespace", None),
            ("demo/clients", "policy", "allow", "workload", Some(0)),
        ]
    );
    assert!(report.listed && report.mode == "permissive" && report.workload == "demo/server");
    let verdict = report.verdict.unwrap();
    assert_eq!(verdict.from, "spiffe://td.test/ns/demo/sa/client");
    assert!(
        verdict.result == "denied" && verdict.reason.contains("demo/gone"),
        "{verdict:?}"
    );
}

#[test]
fn somebody_is_let_in_by_a_rule_and_another_one_because_nobody_matches_is_not() {
    let all = vec![
        policy("clients", Scope::Namespace, Action::Allow, account("client")),
        policy("not-him", Scope::Namespace, Action::Deny, account("thief")),
    ];
    let policies = policies(Mode::Permissive, all, &[]);
    let (result, by, _) = asked(&policies, "from=demo/client");
    assert_eq!((&*result, by.as_deref()), ("allowed", Some("demo/clients")));
    let (result, by, _) = asked(&policies, "from=spiffe://td.test/ns/demo/sa/thief");
    assert_eq!((&*result, by.as_deref()), ("denied", Some("demo/not-him")));
    let (result, by, reason) = asked(&policies, "from=demo/other");
    assert_eq!((&*result, by), ("denied", None));
    assert!(
        reason.starts_with("nobody matches") && reason.contains("demo/clients"),
        "{reason}"
    );
    let (result, ..) = asked(&policies, "from=spiffe://elsewhere/ns/demo/sa/client");
    assert_eq!(
        result, "denied",
        "an identity of another trust domain is another one"
    );
}

#[test]
fn plaintext_is_refused_in_strict_mode_before_a_policy_is_asked() {
    let open = || {
        vec![policy(
            "anybody",
            Scope::Namespace,
            Action::Allow,
            Match {
                destination_ports: of(80),
                ..Match::default()
            },
        )]
    };
    let strict = policies(Mode::Strict, open(), &[]);
    let (result, by, reason) = asked(&strict, "from=none");
    assert_eq!((&*result, by), ("denied", None));
    assert!(reason.contains("plaintext is refused"), "{reason}");
    assert_eq!(asked(&strict, "from=demo/client&port=80").0, "allowed");
    let permissive = policies(Mode::Permissive, open(), &[]);
    assert_eq!(asked(&permissive, "from=none&port=80").0, "allowed");
    assert_eq!(asked(&permissive, "from=none&port=81").0, "denied");
}

#[test]
fn what_depends_on_what_nobody_said_is_not_guessed() {
    let by_address = Match {
        source_ips: of("10.0.0.0/8".parse().unwrap()),
        destination_ports: of(80),
        ..Match::default()
    };
    let all = vec![policy("near", Scope::Namespace, Action::Allow, by_address)];
    let policies = policies(Mode::Permissive, all, &[]);
    for (query, result, words) in [
        ("from=demo/client", "depends", "give port"),
        ("from=demo/client&port=80", "depends", "give address"),
        (
            "from=demo/client&port=80&address=10.0.0.1",
            "allowed",
            "demo/near",
        ),
        (
            "from=demo/client&port=80&address=192.0.2.1",
            "denied",
            "nobody matches",
        ),
    ] {
        let told = asked(&policies, query);
        assert!(told.0 == result && told.2.contains(words), "{query}: {told:?}");
    }
    let other = PoliciesQuestion::parse("from=none&address=fd00::1").unwrap();
    assert!(
        policies
            .report(&other)
            .unwrap_err()
            .contains("no address of that family")
    );
}

#[test]
fn until_the_registry_has_told_something_nobody_is_let_in() {
    let mut policies = policies(Mode::Permissive, Vec::new(), &[]);
    assert_eq!(asked(&policies, "from=demo/client").0, "allowed");
    policies.feed.snapshots = watch::channel(Arc::new(Snapshot::default())).1;
    assert_eq!(asked(&policies, "from=demo/client").0, "denied");
}
