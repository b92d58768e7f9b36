//! The Helm chart: what it renders, what it refuses, and what the API server says of every object.

use std::fs;

use harness::chart::{self, RENDERINGS, Rendering};
use harness::process::Output;

use crate::common::cluster;

/// The cluster has no Prometheus operator, so it does not know this kind.
const UNKNOWN: &str = "no matches for kind \"PodMonitor\" in version \"monitoring.coreos.com/v1\"";

/// Helm on the chart alone, without a cluster.
fn helm(args: &[&str]) -> Output {
    chart::run_helm(&cluster().programs.join("helm"), args).unwrap()
}

fn chart_path() -> String {
    chart::directory().display().to_string()
}

#[test]
fn the_chart_passes_helms_own_checks_with_every_set_of_values() {
    for rendering in RENDERINGS {
        let values = rendering.values.map(|values| chart::root().join(values));
        let values = values.map(|values| values.display().to_string());
        let mut args = vec!["lint", "--strict"];
        if let Some(values) = &values {
            args.extend(["--values", values]);
        }
        let chart = chart_path();
        args.push(&chart);
        helm(&args).ok().unwrap();
    }
}

#[test]
fn the_manifests_are_what_the_chart_renders() {
    for rendering in RENDERINGS {
        let kept = fs::read_to_string(rendering.path()).unwrap();
        let rendered = rendering.render(&cluster().programs.join("helm")).unwrap();
        let lines = kept.lines().zip(rendered.lines()).enumerate();
        for (number, (kept, rendered)) in lines {
            let at = format!("{}:{}", rendering.file, number + 1);
            assert_eq!(kept, rendered, "{at}; run: cargo xtask manifests");
        }
        assert_eq!(
            kept.lines().count(),
            rendered.lines().count(),
            "{}",
            rendering.file
        );
    }
}

/// Each is refused before anything is rendered, by the path of the value and what is wrong with it.
#[test]
fn values_without_a_meaning_are_refused_by_their_path() {
    for (set, path, why) in [
        ("images.tag=1", "''", "additional properties 'images' not allowed"),
        ("image.pullpolicy=Never", "'/image'", "'pullpolicy' not allowed"),
        (
            "image.pullPolicy=Sometimes",
            "'/image/pullPolicy'",
            "'IfNotPresent'",
        ),
        (
            "image.digest=sha256:12",
            "'/image/digest'",
            "does not match pattern",
        ),
        ("image.repository=", "'/image/repository'", "minLength"),
        (
            "trustDomain=Mesh Example",
            "'/trustDomain'",
            "does not match pattern",
        ),
        ("control.replicas=two", "'/control/replicas'", "want integer"),
        ("control.replicas=-1", "'/control/replicas'", "minimum"),
        (
            "control.leafTtl=day",
            "'/control/leafTtl'",
            "does not match pattern",
        ),
        (
            "control.podDisruptionBudget=true",
            "'/control/podDisruptionBudget'",
            "want object",
        ),
        (
            "agent.hostPaths.cgroup=cgroup",
            "'/agent/hostPaths/cgroup'",
            "does not match pattern",
        ),
        ("agent.memory=lots", "'/agent/memory'", "does not match pattern"),
        (
            "agent.resources.limits.memory=1 GB",
            "'/agent/resources/limits/memory'",
            "does not match pattern",
        ),
        (
            "agent.tolerations[0].operater=Exists",
            "'/agent/tolerations/0'",
            "'operater' not allowed",
        ),
        ("log.format=xml", "'/log/format'", "'json'"),
        (
            "metrics.podMonitor.enabled=maybe",
            "'/metrics/podMonitor/enabled'",
            "want boolean",
        ),
    ] {
        let refused = helm(&["template", chart::NAME, &chart_path(), "--set", set]);
        assert!(!refused.status.success(), "{set} is taken");
        let said = refused.stderr;
        let culprit = said.lines().find(|line| line.contains(&format!("at {path}")));
        assert!(culprit.is_some_and(|line| line.contains(why)), "{set}: {said}");
    }
}

#[test]
fn another_namespace_than_its_own_is_refused_with_the_flag_to_add() {
    let refused = helm(&["template", chart::NAME, &chart_path(), "--namespace", "mesh"]);
    assert!(!refused.status.success());
    assert!(
        refused
            .stderr
            .contains("and not in mesh: add --namespace outrigger-system"),
        "{refused:?}"
    );
}

/// Fields that no version of a kind has are refused, too.
fn dry_run(rendering: &Rendering) -> Output {
    let path = rendering.path().display().to_string();
    let args = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
    ];
    let args = [&args[..], &["--field-manager=test", "--filename", &path]].concat();
    cluster().kubectl().output(&args).unwrap()
}

#[test]
fn the_api_server_takes_every_object_that_the_chart_renders() {
    let namespace = chart::root().join("deploy/manifests/namespace.yaml");
    let namespace = namespace.display().to_string();
    cluster()
        .kubectl()
        .run(&["apply", "--filename", &namespace])
        .unwrap();
    for rendering in RENDERINGS {
        let said = dry_run(&rendering);
        let objects = fs::read_to_string(rendering.path()).unwrap();
        let objects = objects.lines().filter(|line| line.starts_with("kind: ")).count();
        let taken = said
            .stdout
            .lines()
            .filter(|line| line.ends_with("(server dry run)"))
            .count();
        let unknown = said.stderr.matches(UNKNOWN).count();
        assert_eq!(taken + unknown, objects, "{}: {said:?}", rendering.file);
        let refused = said.stderr.lines().filter(|line| line.contains("rror"));
        let refused: Vec<_> = refused.filter(|line| !line.contains(UNKNOWN)).collect();
        assert!(refused.is_empty(), "{}: {refused:?}", rendering.file);
    }
}
