//! How a cluster is called.

use super::*;

const MINIMAL_CONTROL: &str = "kubernetes: outrigger-system";

fn problem(text: &str) -> String {
    read_control(text, &[]).unwrap_err()
}

#[test]
fn a_cluster_has_usual_names_and_each_can_be_another() {
    let role = read_control(MINIMAL_CONTROL, &[]).unwrap().role;
    let cluster = role.cluster.unwrap();
    assert_eq!(
        (&*cluster.id, &*cluster.domain, &*cluster.root_namespace),
        ("Kubernetes", "cluster.local", "istio-system")
    );
    assert_eq!(
        role.issuer.server_names,
        [
            "outrigger-control.outrigger-system.svc",
            "outrigger-control.outrigger-system.svc.cluster.local"
        ]
    );

    let text = "{kubernetes: mesh, clusterDomain: corp.example, clusterId: East_1, rootNamespace: mesh-root}";
    let role = read_control(text, &["--cluster-id", "west"]).unwrap().role;
    let cluster = role.cluster.unwrap();
    assert_eq!(
        (&*cluster.id, &*cluster.domain, &*cluster.root_namespace),
        ("west", "corp.example", "mesh-root")
    );
    assert_eq!(
        role.issuer.server_names,
        [
            "outrigger-control.mesh.svc",
            "outrigger-control.mesh.svc.corp.example"
        ],
        "agents that dial it by its whole name find that in its certificate"
    );
}

#[test]
fn the_webhook_has_the_domain_of_the_cluster_too() {
    let profile = Scratch::new("cluster-profile", "image: x:1\n");
    let text = format!(
        "{{stateDir: /s, webhook: '[::]:1', webhookProfile: {}, clusterDomain: corp.example}}",
        profile.0.display()
    );
    let webhook = read_control(&text, &[]).unwrap().role.webhook.unwrap();
    assert_eq!(webhook.cluster_domain, "corp.example");
}

#[test]
fn a_name_that_a_cluster_cannot_have_is_refused_by_its_field_and_value() {
    let long = format!("{}.a", "a".repeat(60).as_str().to_owned() + "." + &"b".repeat(60));
    for (field, value, what, remedy) in [
        (
            "clusterDomain",
            "Cluster.Local",
            "is no DNS name in small letters",
            "clusterDomain",
        ),
        (
            "clusterDomain",
            "cluster.local.",
            "is no DNS name",
            "such as cluster.local",
        ),
        (
            "clusterDomain",
            "cluster..local",
            "is no DNS name",
            "such as cluster.local",
        ),
        ("clusterDomain", "-a.b", "is no DNS name", "such as cluster.local"),
        (
            "clusterDomain",
            &*long,
            "is longer than 121 characters",
            "such as cluster.local",
        ),
        (
            "clusterId",
            "east/1",
            "is no name of a cluster",
            "such as Kubernetes",
        ),
        (
            "clusterId",
            "a b",
            "is no name of a cluster",
            "such as Kubernetes",
        ),
        (
            "rootNamespace",
            "istio.system",
            "is no name of a namespace",
            "such as istio-system",
        ),
        (
            "rootNamespace",
            "Istio",
            "is no name of a namespace",
            "such as istio-system",
        ),
    ] {
        let found = problem(&format!("{{{MINIMAL_CONTROL}, {field}: '{value}'}}"));
        assert!(
            found.contains(&format!("`{field}`: `{value}` {what}")) && found.contains(remedy),
            "{found}"
        );
    }
}

#[test]
fn names_of_a_cluster_without_one_are_refused() {
    for field in ["clusterId", "rootNamespace"] {
        let found = problem(&format!("{{stateDir: /s, {field}: a}}"));
        assert!(
            found.contains(&format!(
                "`{field}`: it is given, and `kubernetes` is missing; set kubernetes"
            )),
            "{found}"
        );
    }
    let found = problem("{stateDir: /s, clusterDomain: a}");
    assert!(
        found.contains("`clusterDomain`: it is given, and neither `kubernetes` nor `webhook` is"),
        "{found}"
    );
}

#[test]
fn a_proxy_says_of_which_cluster_its_token_is() {
    let ask = |args: &[&str]| match read_proxy(MINIMAL, &[&["--interception", "none"], args].concat())
        .unwrap()
        .role
        .identity
        .source
    {
        identity::Source::Authority(ask) => ask.cluster,
        identity::Source::Files(_) => panic!("it asks an authority"),
    };
    assert_eq!(ask(&[]), "Kubernetes");
    assert_eq!(ask(&["--cluster-id", "east"]), "east");
    let found = read_proxy(MINIMAL, &["--interception", "none", "--cluster-id", "a/b"]).unwrap_err();
    assert!(
        found.starts_with("`--cluster-id`: `a/b` is no name of a cluster"),
        "{found}"
    );
}
