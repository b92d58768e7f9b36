//! Which policies a pod is told to be selected by.

use serde_json::{Value, json};

use super::*;

fn labelled(name: &str, address: &str, app: &str) -> WorkloadPod {
    let mut pod = pod(name, address);
    let labels = [("app".to_owned(), app.to_owned())];
    pod.labels = std::sync::Arc::new(labels.into());
    pod
}

pub(super) fn policy<T: serde::de::DeserializeOwned>(name: &str, namespace: &str, spec: Value) -> T {
    let metadata = json!({"name": name, "namespace": namespace, "creationTimestamp": "2026-11-28T12:00:00Z"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn authorization(name: &str, app: Option<&str>) -> Event {
    let rules = json!([{"from": [{"source": {"namespaces": ["demo"]}}]}]);
    let selector = app.map(|app| json!({"matchLabels": {"app": app}}));
    Event::Authorizations(Change::Applied(policy(
        name,
        "demo",
        json!({"rules": rules, "selector": selector}),
    )))
}

fn world() -> World {
    let pods = vec![labelled("a", "10.0.0.1", "web"), labelled("b", "10.0.0.2", "db")];
    World::with(vec![], pods, vec![], vec![])
}

fn told(world: &World) -> usize {
    let policies = world
        .known
        .values()
        .filter(|resource| matches!(resource, Resource::Policy(_)));
    policies.count()
}

#[test]
fn a_policy_is_told_with_the_pods_that_it_selects_and_no_others() {
    let mut world = world();
    world.take(authorization("web", Some("web")));
    assert_eq!((world.told, told(&world)), (2, 1), "the policy and one pod");
    assert_eq!(world.of_pod("a").authorization_policies, ["demo/web"]);
    assert_eq!(world.of_pod("b").authorization_policies, Vec::<String>::new());
    world.take(authorization("web", Some("db")));
    assert_eq!(
        (world.told, told(&world)),
        (2, 1),
        "both pods; the policy is the same"
    );
    assert_eq!(world.of_pod("b").authorization_policies, ["demo/web"]);
    world.pod(labelled("b", "10.0.0.2", "web"));
    assert_eq!(world.of_pod("b").authorization_policies, Vec::<String>::new());
    world.take(authorization("all", None));
    assert_eq!(
        (world.told, told(&world)),
        (1, 2),
        "it is for its namespace, and no pod names it"
    );
}

#[test]
fn a_list_of_policies_that_are_known_tells_nothing_and_an_empty_one_takes_them_back() {
    let mut world = world();
    world.take(authorization("web", Some("web")));
    let Event::Authorizations(Change::Applied(web)) = authorization("web", Some("web")) else {
        panic!("it is one");
    };
    world.take(Event::Authorizations(Change::All(vec![web])));
    assert_eq!(world.told, 0);
    world.take(Event::Authorizations(Change::Trouble("away".into())));
    assert_eq!((world.told, told(&world)), (0, 1));
    let last = world.catalog.take(Event::Authorizations(Change::All(vec![])));
    let is_policy = |update: &Update| matches!(update, Update::Remove(key) if key.kind == crate::xds::Kind::Authorization);
    assert!(
        last.len() == 2 && last.last().is_some_and(is_policy),
        "the pod first: {last:?}"
    );
}

#[test]
fn a_demand_for_mutual_tls_selects_the_pods_of_its_namespace() {
    let mut world = world();
    let strict = json!({"mtls": {"mode": "STRICT"}});
    world.take(Event::Peers(Change::Applied(policy("default", "demo", strict))));
    for pod in ["a", "b"] {
        assert_eq!(world.of_pod(pod).authorization_policies.len(), 1, "{pod}");
    }
    assert!(told(&world) > 0);
    world.take(Event::Peers(Change::All(vec![])));
    assert_eq!(
        (world.of_pod("a").authorization_policies.len(), told(&world)),
        (0, 0)
    );
}

#[test]
fn what_is_not_followed_is_a_problem() {
    let mut world = world();
    let http = json!({"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]});
    world.take(Event::Authorizations(Change::Applied(policy(
        "http", "demo", http,
    ))));
    assert_eq!(world.catalog.problems().len(), 1);
    world.take(Event::Authorizations(Change::All(vec![])));
    assert_eq!(world.catalog.problems(), []);
}
