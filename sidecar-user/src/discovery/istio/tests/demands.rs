//! PeerAuthentications: which of them hold for a workload.

use super::*;

const STRICT: &str = "istio-system/istio_converted_static_strict";
const PORTS: &str = "ns1/converted_peer_authentication_selector";

fn object(namespace: &str, name: &str, spec: Value) -> PeerAuthentication {
    peer(json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec}))
}

fn mode(mode: &str) -> Value {
    json!({"mtls": {"mode": mode}})
}

fn selecting(mode: &str, ports: Value) -> Value {
    json!({"selector": {"matchLabels": {"app": "a"}}, "mtls": {"mode": mode}, "portLevelMtls": ports})
}

fn apply(policies: &mut IstioPolicies, namespace: &str, name: &str, spec: Value) {
    policies.peer(Change::Applied(object(namespace, name, spec)));
}

fn names(policies: &IstioPolicies, app: &str) -> Vec<String> {
    strings(&policies.names_for("ns1", &labels(&[("app", app)])))
}

/// The steps of Istio's own test of its index, TestAmbientIndex_Policy.
#[test]
fn the_nearest_object_that_says_something_holds() {
    let mut all = IstioPolicies::new(ROOT);
    apply(&mut all, ROOT, "global", mode("PERMISSIVE"));
    assert_eq!(names(&all, "a"), [""; 0]);
    apply(&mut all, "ns1", "namespace", mode("STRICT"));
    assert_eq!(names(&all, "a"), [STRICT]);
    apply(&mut all, "ns1", "selector", selecting("STRICT", json!(null)));
    assert_eq!(names(&all, "a"), [STRICT]);
    apply(&mut all, "ns1", "selector", selecting("PERMISSIVE", json!(null)));
    assert_eq!(names(&all, "a"), [""; 0]);
    apply(
        &mut all,
        "ns1",
        "selector",
        selecting("PERMISSIVE", json!({"9090": {"mode": "STRICT"}})),
    );
    assert_eq!(names(&all, "a"), [PORTS]);
    assert_eq!(
        names(&all, "not-a"),
        [STRICT],
        "another one keeps its namespace's"
    );
    apply(
        &mut all,
        ROOT,
        "global-selector",
        selecting("STRICT", json!(null)),
    );
    assert_eq!(
        names(&all, "a"),
        [PORTS],
        "of the root namespace none selects single workloads"
    );
    let in_root = all.names_for(ROOT, &labels(&[("app", "a")]));
    assert_eq!(strings(&in_root), [""; 0], "not even those that are there");
    all.peer(Change::Gone(object(ROOT, "global-selector", Value::Null)));
    apply(
        &mut all,
        "ns1",
        "selector",
        selecting("PERMISSIVE", json!({"9090": {"mode": "PERMISSIVE"}})),
    );
    assert_eq!(names(&all, "a"), [""; 0]);
    apply(&mut all, "ns1", "namespace", mode("PERMISSIVE"));
    assert_eq!(names(&all, "a"), [""; 0]);
    apply(&mut all, "ns1", "selector", selecting("STRICT", json!(null)));
    assert_eq!(names(&all, "a"), [STRICT]);
    apply(
        &mut all,
        "ns1",
        "selector",
        selecting("STRICT", json!({"9090": {"mode": "PERMISSIVE"}})),
    );
    assert_eq!(names(&all, "a"), [PORTS]);
    apply(
        &mut all,
        "ns1",
        "selector",
        selecting("UNSET", json!({"9090": {"mode": "STRICT"}})),
    );
    assert_eq!(names(&all, "a"), [PORTS]);
    apply(&mut all, "ns1", "namespace", mode("STRICT"));
    assert_eq!(names(&all, "a"), [STRICT]);
    apply(
        &mut all,
        "ns1",
        "selector",
        selecting("UNSET", json!({"9090": {"mode": "PERMISSIVE"}})),
    );
    assert_eq!(names(&all, "a"), [PORTS], "strictness stands in it");
    all.peer(Change::Gone(object("ns1", "selector", Value::Null)));
    assert_eq!(names(&all, "a"), [STRICT]);
    all.peer(Change::Gone(object("ns1", "namespace", Value::Null)));
    let last = all.peer(Change::Gone(object(ROOT, "global", Value::Null)));
    assert_eq!(
        (names(&all, "a"), strings(&last.removed)),
        (vec![], vec![STRICT.to_owned()])
    );
}

/// The steps of the same test with AuthorizationPolicies beside them.
#[test]
fn selecting_policies_of_both_kinds_are_named_together() {
    let mut all = IstioPolicies::new(ROOT);
    let add = |all: &mut IstioPolicies, namespace: &str, name: &str, selector: Value| {
        let object =
            json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"selector": selector}});
        all.authorization(Change::Applied(authorization(object)));
    };
    let app = |app: &str| json!({"matchLabels": {"app": app}});
    add(&mut all, ROOT, "global", Value::Null);
    add(&mut all, "ns1", "namespace", Value::Null);
    add(&mut all, "ns1", "selector", app("a"));
    assert_eq!(
        (names(&all, "a"), names(&all, "not-a")),
        (vec!["ns1/selector".into()], vec![])
    );
    add(&mut all, ROOT, "global-selector", app("a"));
    assert_eq!(names(&all, "a"), ["istio-system/global-selector", "ns1/selector"]);
    add(&mut all, ROOT, "global-selector", app("not-a"));
    assert_eq!(names(&all, "a"), ["ns1/selector"]);
    apply(&mut all, ROOT, "strict", mode("STRICT"));
    assert_eq!(names(&all, "a"), [STRICT, "ns1/selector"]);
    apply(
        &mut all,
        "ns1",
        "selector-strict",
        selecting("PERMISSIVE", json!(null)),
    );
    assert_eq!(names(&all, "a"), ["ns1/selector"]);
}

/// istiod leaves the port open in the second case: it takes its rule for one that the mesh enforces already.
#[test]
fn a_strict_port_of_a_permissive_workload_is_strict_whatever_holds_around_it() {
    for around in ["PERMISSIVE", "STRICT", "UNSET"] {
        let mut all = IstioPolicies::new(ROOT);
        apply(&mut all, ROOT, "mesh", mode(around));
        apply(
            &mut all,
            "ns1",
            "selector",
            selecting("PERMISSIVE", json!({"9090": {"mode": "STRICT"}})),
        );
        assert_eq!(names(&all, "a"), [PORTS], "{around}");
        assert!(
            all.served.keys().any(|name| name.to_string() == PORTS),
            "{around}"
        );
    }
}

#[test]
fn disabled_ports_of_a_strict_namespace_are_open_as_permissive_ones() {
    for port in ["DISABLE", "PERMISSIVE"] {
        let mut all = IstioPolicies::new(ROOT);
        apply(&mut all, "ns1", "namespace", mode("STRICT"));
        apply(
            &mut all,
            "ns1",
            "selector",
            selecting("UNSET", json!({"9090": {"mode": port}})),
        );
        assert_eq!(names(&all, "a"), [PORTS], "{port}");
    }
}

#[test]
fn of_several_for_the_same_the_oldest_holds_and_the_others_are_told() {
    let aged = |namespace: &str, name: &str, created: &str, spec: Value| {
        let metadata = json!({"name": name, "namespace": namespace, "creationTimestamp": created});
        peer(json!({"metadata": metadata, "spec": spec}))
    };
    let (old, young) = ("2026-01-01T00:00:00Z", "2026-06-01T00:00:00Z");
    for (namespace, spec) in [
        (ROOT, mode as fn(&str) -> Value),
        ("ns1", mode),
        ("ns1", |mode| selecting(mode, json!(null))),
    ] {
        for (first, second, wanted) in [
            ("STRICT", "PERMISSIVE", vec![STRICT]),
            ("PERMISSIVE", "STRICT", vec![]),
        ] {
            let mut all = IstioPolicies::new(ROOT);
            let objects = vec![
                aged(namespace, "a", young, spec(second)),
                aged(namespace, "b", old, spec(first)),
            ];
            all.peer(Change::All(objects));
            assert_eq!(names(&all, "a"), wanted, "{namespace} {first}");
        }
    }
    let mut all = IstioPolicies::new(ROOT);
    all.peer(Change::All(vec![
        aged("ns1", "a", young, mode("STRICT")),
        aged("ns1", "b", old, mode("UNSET")),
    ]));
    assert_eq!(
        told(&all),
        [
            "PeerAuthentication ns1/a: it is ignored, because ns1/b is older and is for the same workloads; remove one of them"
        ]
    );
}

#[test]
fn what_is_ignored_is_told_and_what_cannot_be_read_demands_mutual_tls() {
    for (namespace, spec, words, strict) in [
        (
            ROOT,
            selecting("STRICT", json!(null)),
            "in the root namespace, where it is ignored",
            false,
        ),
        (
            "ns1",
            json!({"portLevelMtls": {"80": {"mode": "STRICT"}}}),
            "`portLevelMtls` is ignored",
            false,
        ),
        (
            "ns1",
            json!({"mtls": {"mode": "ALWAYS"}}),
            "the mode ALWAYS is not known, so it is STRICT",
            true,
        ),
        (
            "ns1",
            selecting("UNSET", json!({"http": {"mode": "STRICT"}})),
            "`http` is no port",
            false,
        ),
        ("ns1", json!({"mtls": 7}), "it cannot be read", true),
        ("ns1", json!({"jwt": {"a": 1}}), "`jwt` is not known here", false),
    ] {
        let mut all = IstioPolicies::new(ROOT);
        apply(&mut all, namespace, "p", spec);
        let told = told(&all);
        assert!(told.len() == 1 && told[0].contains(words), "{told:?}");
        assert_eq!(names(&all, "a") == [STRICT], strict, "{words}");
    }
}
