//! Before an installation.

use super::super::super::facts::Before;
use super::*;
use crate::kubernetes::SYSTEM_NAMESPACE;

fn ready_to_install() -> Before {
    Before {
        rights: Ok(vec![(OwnRight::new("create", "", "namespaces"), true)]),
        nodes: Ok(vec![node("node-1"), node("node-2")]),
        namespace: Ok(None),
    }
}

#[test]
fn before_an_installation_the_cluster_is_looked_at() {
    let report = judge::before(&server(36), &ready_to_install());
    assert!(report.succeeded, "{report:?}");
    let old = judge::before(&server(34), &ready_to_install());
    assert!(old.succeeded);
    has(
        of(&old, "api-server-version"),
        Outcome::Warning,
        "by webhook before",
    );

    let spoilt = |id: &str, spoil: fn(&mut Before)| {
        let mut before = ready_to_install();
        spoil(&mut before);
        of(&judge::before(&server(36), &before), id)
    };
    fn first(before: &mut Before) -> &mut SeenNode {
        &mut before.nodes.as_mut().unwrap()[0]
    }
    has(
        spoilt("install-rights", |before| {
            before.rights.as_mut().unwrap()[0].1 = false
        }),
        Outcome::Failed,
        "you may not create namespaces",
    );
    for (kernel, outcome) in [
        ("5.16.20", Outcome::Failed),
        ("5.17.0-rc1", Outcome::Ok),
        ("?", Outcome::Failed),
    ] {
        let mut before = ready_to_install();
        first(&mut before).kernel = kernel.into();
        let words = if outcome == Outcome::Ok { "" } else { "node-1" };
        has(
            of(&judge::before(&server(36), &before), "nodes-kernel"),
            outcome,
            words,
        );
    }
    has(
        spoilt("nodes-architecture", |before| {
            first(before).architecture = "s390x".into()
        }),
        Outcome::Failed,
        "node-1 (s390x)",
    );
    has(
        spoilt("nodes-kubelet", |before| first(before).kubelet = "v1.32.9".into()),
        Outcome::Failed,
        "node-1 (v1.32.9)",
    );
    has(
        spoilt("nodes-runtime", |before| {
            first(before).runtime = "docker://20.1".into()
        }),
        Outcome::Warning,
        "docker://20.1",
    );
    // Of nodes without Linux nothing is asked, unless there are no others.
    has(
        spoilt("nodes-kernel", |before| {
            *first(before) = SeenNode {
                os: "windows".into(),
                ..SeenNode::default()
            };
        }),
        Outcome::Ok,
        "",
    );
    has(
        spoilt("nodes-linux", |before| before.nodes.as_mut().unwrap().clear()),
        Outcome::Failed,
        "none",
    );
    has(
        spoilt("nodes", |before| before.nodes = Err(forbidden())),
        Outcome::Warning,
        "ann may not",
    );
}

#[test]
fn a_namespace_that_refuses_agents_is_said_with_the_label_to_set() {
    let label = |standard: Option<&str>| {
        let labels = standard.map(|standard| {
            (
                "pod-security.kubernetes.io/enforce".to_owned(),
                standard.to_owned(),
            )
        });
        let before = Before {
            namespace: Ok(Some(labels.into_iter().collect())),
            ..ready_to_install()
        };
        judge::before(&server(36), &before)
    };
    for fine in [None, Some("privileged")] {
        has(of(&label(fine), "namespace-pod-security"), Outcome::Ok, "");
    }
    let report = label(Some("baseline"));
    has(
        of(&report, "namespace-pod-security"),
        Outcome::Failed,
        "enforce=baseline",
    );
    let remedy = check(&report, "namespace-pod-security").remedy.clone().unwrap();
    assert!(
        remedy.contains(&format!("kubectl label namespace {SYSTEM_NAMESPACE} --overwrite")),
        "{remedy}"
    );
}
