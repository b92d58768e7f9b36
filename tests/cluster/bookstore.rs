//! The bookstore of `deploy/examples`: what a newcomer sees after four commands is secured, but for the one port that says otherwise,
//! and refuses whom its policies do not name.

use std::collections::BTreeMap;

use harness::cluster::{Mesh, Namespace, bookstore};
use harness::wait::{self, SOON};
use serde_json::Value;

use crate::common::{cluster, psql};
use crate::kinds::Kinds;
use crate::mesh::mesh;

/// Who talks to whom, at which port.
type Ends = (String, String, u64);

/// What the agents of all nodes say of the namespace's connections, added up by the plugin: whether all of them are secured, and how
/// many there were.
fn edges(mesh: &Mesh<'_>, namespace: &str) -> BTreeMap<Ends, (bool, u64)> {
    let mut found: BTreeMap<Ends, (bool, u64)> = BTreeMap::new();
    for node in &cluster().nodes {
        let list = mesh.edges(&node.name).unwrap();
        for edge in list["edges"].as_array().unwrap() {
            let is_ours = |end: &Value| {
                let name = end["name"].as_str().unwrap();
                name.starts_with(&format!("{namespace}/"))
            };
            // While pods start there is nobody to dial behind a Service, and nothing leaves.
            let went = edge["reason"] != "nobody was dialled";
            if went && (is_ours(&edge["source"]) || is_ours(&edge["destination"])) {
                let name = |end: &Value| {
                    let name = end["name"].as_str().unwrap();
                    // Addresses are of pods that come and go.
                    match end["kind"] == "workload" {
                        true => name.rsplit('/').next().unwrap().to_owned(),
                        false => end["kind"].as_str().unwrap().to_owned(),
                    }
                };
                let ends = (
                    name(&edge["source"]),
                    name(&edge["destination"]),
                    edge["port"].as_u64().unwrap_or_default(),
                );
                let entry = found.entry(ends).or_insert((true, 0));
                entry.0 &= edge["secured"] == true;
                entry.1 += edge["connections"].as_u64().unwrap();
            }
        }
    }
    found
}

fn ends(source: &str, destination: &str, port: u64) -> Ends {
    (source.into(), destination.into(), port)
}

/// Of a container of a Deployment's pod, or of `pod/NAME`.
fn run(namespace: &Namespace<'_>, of: &str, command: &[&str]) -> Option<String> {
    let (target, container) = of.split_once(' ').unwrap();
    let args = [
        "--namespace",
        namespace.name(),
        "exec",
        target,
        "--container",
        container,
        "--",
    ];
    let said = namespace.kubectl().output(&[&args, command].concat()).unwrap();
    said.status.success().then_some(said.stdout)
}

fn orders(namespace: &Namespace<'_>) -> u64 {
    let count = [
        "psql",
        "--host=127.0.0.1",
        "--username=postgres",
        "--tuples-only",
        "--no-align",
        "--command=SELECT count(*) FROM orders",
    ];
    let counted = run(namespace, "pod/orders-0 postgres", &count);
    counted.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn the_bookstore_is_secured_but_for_its_excluded_port_and_lets_in_whom_its_policies_name() {
    let mesh = mesh();
    let kinds = Kinds::install(mesh.kubectl());
    let namespace = Namespace::create(mesh.kubectl(), "bookstore").unwrap();
    let labels = bookstore::namespace(mesh.kubectl()).unwrap()["metadata"]["labels"].clone();
    for (label, value) in labels.as_object().unwrap() {
        let label = format!("{label}={}", value.as_str().unwrap());
        let args = ["label", "namespace", namespace.name(), &label];
        mesh.kubectl().run(&args).unwrap();
    }
    namespace
        .apply(&bookstore::policies(mesh.kubectl()).unwrap())
        .unwrap();
    namespace
        .apply(&bookstore::workloads(mesh.kubectl()).unwrap())
        .unwrap();

    for name in ["catalog", "front", "checkout", "customer", "monitor"] {
        let deployment = format!("deployment/{name}");
        namespace.wait(&deployment, "condition=Available").unwrap();
    }
    for name in ["cart", "orders"] {
        let pod = format!("pod/{name}-0");
        namespace.wait(&pod, "condition=Ready").unwrap();
    }
    // A sidecar that went on would keep its pod, and the Job, from their ends.
    namespace.wait("job/stock", "condition=Complete").unwrap();

    // From the front by the cart and the checkout into the database.
    wait::until("orders come in", SOON * 2, || orders(&namespace) >= 3).unwrap();

    let figures = "http://catalog-pods:9113/metrics";
    wait::until("the monitor is answered", SOON * 2, || {
        let scrape = ["curl", "--silent", "--show-error", "--max-time", "5", figures];
        run(&namespace, "deployment/monitor curl", &scrape)
            .is_some_and(|text| text.contains("Active connections"))
    })
    .unwrap();
    let books = [
        "curl",
        "--silent",
        "--fail",
        "--max-time",
        "5",
        "http://front/books",
    ];
    let said = run(&namespace, "deployment/customer curl", &books);
    assert!(
        said.as_deref().is_some_and(|text| text.contains("Moby-Dick")),
        "{said:?}"
    );

    let secured = [
        ends("customer", "front", 80),
        ends("front", "catalog", 8080),
        ends("front", "cart", 6379),
        ends("checkout", "cart", 6379),
        ends("checkout", "orders", 5432),
        ends("stock", "orders", 5432),
    ];
    let plaintext = [ends("address", "catalog", 9113)];
    let expected: BTreeMap<Ends, bool> = secured
        .map(|ends| (ends, true))
        .into_iter()
        .chain(plaintext.map(|ends| (ends, false)))
        .collect();
    let found = edges(&mesh, namespace.name());
    let said: BTreeMap<Ends, bool> = found
        .iter()
        .map(|(ends, (secured, _))| (ends.clone(), *secured))
        .collect();
    assert_eq!(said, expected, "{found:?}");

    refuses(&mesh, &namespace);
    drop(namespace);
    drop(kinds);
}

/// Nobody whom the policies do not name, and no plaintext but at the one port.
fn refuses(mesh: &Mesh<'_>, namespace: &Namespace<'_>) {
    let of = |from: &str, command: &[&str]| run(namespace, &format!("deployment/{from} curl"), command);
    let curl = |from: &str, url: &str| of(from, &["curl", "-sS", "--fail", "--max-time", "3", url]);
    // The same pods as those that answer at the other port.
    let (strict, books) = (
        "http://catalog-pods:8080/books.json",
        "http://catalog:8080/books.json",
    );
    assert_eq!(curl("monitor", strict), None, "plaintext at a strict port");
    assert_eq!(curl("customer", books), None, "a customer at the catalog");
    assert!(
        curl("customer", "http://front/books").is_some(),
        "a customer at the front"
    );
    // Whom the catalog refused its sidecars tell.
    let is_refusal = |flow: &Value| {
        let pod = flow["pod"].as_str().unwrap_or_default();
        pod.starts_with(&format!("{}/catalog-", namespace.name())) && flow["closeCause"] == "denied"
    };
    wait::until("refusals are told", SOON, || {
        let mut nodes = cluster().nodes.iter();
        nodes.any(|node| mesh.flows(&node.name).unwrap().iter().any(is_refusal))
    })
    .unwrap();

    // Where nothing says who may connect to whom, all of the mesh may, and plaintext still may not: by its policy at the
    // catalog, by the pod's own annotation at the orders.
    let policies = "authorizationpolicies.security.istio.io";
    let delete = ["--namespace", namespace.name(), "delete", policies, "--all"];
    namespace.kubectl().run(&delete).unwrap();
    let database = namespace.get(&["pod", "orders-0"]).unwrap()["status"]["podIP"].clone();
    let select = psql(database.as_str().unwrap());
    wait::until(
        "a customer is answered by the catalog and the orders",
        SOON * 2,
        || {
            let answered = of("customer", &select).is_some_and(|text| text.trim() == "42");
            answered && curl("customer", books).is_some()
        },
    )
    .unwrap();
    assert_eq!(curl("monitor", strict), None, "plaintext at a strict port");
    assert_eq!(of("monitor", &select), None, "plaintext to a strict pod");
}
