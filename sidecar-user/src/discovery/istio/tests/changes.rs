//! What a change changes, and for whom.

use super::*;

fn object(namespace: &str, name: &str, action: &str) -> AuthorizationPolicy {
    authorization(
        json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"action": action, "rules": [{}]}}),
    )
}

fn put(changed: &Changed) -> Vec<String> {
    changed.put.iter().map(|policy| policy.name.to_string()).collect()
}

#[test]
fn only_what_is_another_one_than_before_is_put() {
    let mut all = IstioPolicies::new(ROOT);
    let objects = vec![
        object("n", "a", "DENY"),
        object("n", "b", "DENY"),
        object("m", "a", "DENY"),
    ];
    assert_eq!(
        put(&all.authorization(Change::All(objects.clone()))),
        ["m/a", "n/a", "n/b"]
    );
    let again = all.authorization(Change::All(objects));
    assert_eq!(
        (again.put, again.removed, again.reach),
        (vec![], vec![], Reach::Everybody)
    );
    let other = all.authorization(Change::Applied(object("n", "b", "ALLOW")));
    assert_eq!(
        (put(&other), other.reach),
        (vec!["n/b".into()], Reach::Namespace("n".into()))
    );
    let refused = all.authorization(Change::Applied(object("n", "b", "AUDIT")));
    assert_eq!(
        strings(&refused.removed),
        ["n/b"],
        "nothing of it is enforced any more"
    );
    let gone = all.authorization(Change::Gone(object("n", "a", "DENY")));
    assert_eq!((put(&gone), strings(&gone.removed)), (vec![], vec!["n/a".into()]));
    let rest = all.authorization(Change::All(vec![]));
    assert_eq!(strings(&rest.removed), ["m/a"]);
}

#[test]
fn a_server_that_cannot_be_asked_and_an_unknown_object_that_goes_change_nothing() {
    let mut all = IstioPolicies::new(ROOT);
    all.authorization(Change::Applied(object("n", "a", "DENY")));
    let unknown = all.authorization(Change::Gone(object("n", "b", "DENY")));
    assert_eq!(unknown, Changed::default());
    assert_eq!(
        all.authorization(Change::Trouble("away".into())),
        Changed::default()
    );
    assert_eq!(all.served.len(), 1);
}

#[test]
fn what_the_mesh_demands_changes_the_policies_of_every_namespace() {
    let mut all = IstioPolicies::new(ROOT);
    let ports =
        json!({"selector": {"matchLabels": {"app": "a"}}, "portLevelMtls": {"80": {"mode": "PERMISSIVE"}}});
    let own = peer(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": ports}));
    let first = all.peer(Change::Applied(own));
    let strict = "istio-system/istio_converted_static_strict";
    assert_eq!(
        (put(&first), &first.reach),
        (vec![strict.to_owned()], &Reach::Namespace("n".into()))
    );
    let mesh = json!({"metadata": {"name": "mesh", "namespace": ROOT}, "spec": {"mtls": {"mode": "STRICT"}}});
    let second = all.peer(Change::Applied(peer(mesh)));
    assert_eq!(
        put(&second),
        ["n/converted_peer_authentication_p"],
        "it excepts a port from that"
    );
    assert_eq!(second.reach, Reach::Everybody);
}
