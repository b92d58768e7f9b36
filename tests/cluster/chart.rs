//! The Helm chart: what it renders, what it refuses, and what the API server says of every object.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use harness::chart::{self, RENDERINGS, Rendering};
use harness::process::Output;
use harness::wait::SOON;

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
        (
            "clusterDomain=cluster..local",
            "'/clusterDomain'",
            "does not match pattern",
        ),
        ("clusterDomain=", "'/clusterDomain'", "does not match pattern"),
        ("clusterId=east/1", "'/clusterId'", "does not match pattern"),
        (
            "rootNamespace=istio.system",
            "'/rootNamespace'",
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
        (
            "proxy.refresh=often",
            "'/proxy/refresh'",
            "does not match pattern",
        ),
        ("proxy.mode=loose", "'/proxy/mode'", "'strict'"),
        (
            "proxy.resources.cpu=some",
            "'/proxy/resources/cpu'",
            "does not match pattern",
        ),
        (
            "agent.api=0.0.0.0:15030",
            "'/agent/api'",
            "does not match pattern",
        ),
        (
            "agent.status=everywhere",
            "'/agent/status'",
            "does not match pattern",
        ),
        (
            "agent.updateStrategy.rollingUpdate.maxSurge=1",
            "'/agent/updateStrategy/rollingUpdate'",
            "'maxSurge' not allowed",
        ),
        (
            "plugin.subjects[0].kind=Role,plugin.subjects[0].name=x",
            "'/plugin/subjects/0/kind'",
            "'ServiceAccount'",
        ),
        (
            "plugin.subjects[0].kind=ServiceAccount,plugin.subjects[0].name=x",
            "'/plugin/subjects/0'",
            "missing property 'namespace'",
        ),
        ("resourceQuota=true", "'/resourceQuota'", "want object"),
        ("injection.by=magic", "'/injection/by'", "'webhook'"),
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
fn the_values_of_an_older_chart_alone_are_refused_with_the_flag_to_take() {
    for older in [
        "plugin=null",
        "resourceQuota=null",
        "agent.status=null",
        "agent.api=null",
    ] {
        let refused = helm(&["template", chart::NAME, &chart_path(), "--set", older]);
        assert!(!refused.status.success(), "{older}");
        assert!(
            refused.stderr.contains("upgrade with --reset-then-reuse-values"),
            "{older}: {refused:?}"
        );
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

/// The profile that the chart writes down for people and for control.
fn profile_in(rendered: &str) -> String {
    let (_, rest) = rendered.split_once("  profile.yaml: |\n").unwrap();
    let lines = rest.lines().map_while(|line| line.strip_prefix("    "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The rules of injection are written once; what the chart has of them was made from what the plugin prints.
#[test]
fn the_chart_injects_by_what_the_plugin_prints_for_its_profile() {
    let scratch = std::env::temp_dir().join(format!("outrigger-profile-{}", std::process::id()));
    for (rendering, option) in RENDERINGS.iter().zip(["--policies", "--webhook"]) {
        let rendered = fs::read_to_string(rendering.path()).unwrap();
        fs::write(&scratch, profile_in(&rendered)).unwrap();
        let mut plugin = Command::new(plugin());
        plugin.args(["inject", option, "--profile"]).arg(&scratch);
        let printed = Output::of(plugin, SOON).unwrap().ok().unwrap();
        let objects: Vec<&str> = printed
            .split("---\n")
            .filter(|object| !object.trim().is_empty())
            .collect();
        for object in &objects {
            assert!(
                rendered.contains(object.trim_end()),
                "{} has not:\n{object}",
                rendering.file
            );
        }
        let kinds = ["kind: Mutating", "kind: Validating"];
        let of_injection = rendered
            .lines()
            .filter(|line| kinds.iter().any(|kind| line.starts_with(kind)));
        assert_eq!(of_injection.count(), objects.len(), "{}", rendering.file);
    }
    fs::remove_file(scratch).unwrap();
}

/// That of our image.
fn plugin() -> PathBuf {
    let built = cluster().programs.ancestors().nth(2).unwrap().join("image");
    let roots = fs::read_dir(built).unwrap().map(|entry| entry.unwrap().path());
    let mut plugins = roots.map(|root| root.join("usr/bin/kubectl-outrigger"));
    plugins.find(|path| path.exists()).unwrap()
}

#[test]
fn the_chart_installs_the_version_of_the_programs() {
    let chart = fs::read_to_string(chart::directory().join("Chart.yaml")).unwrap();
    let line = format!("\nappVersion: {}\n", env!("CARGO_PKG_VERSION"));
    assert!(chart.contains(&line), "appVersion in Chart.yaml is not {line}");
}

/// The packages of older versions with those versions, the newest last.
pub(crate) fn published() -> Vec<(String, PathBuf)> {
    let charts = fs::read_dir(chart::root().join("tests/cluster/charts")).unwrap();
    let paths = charts.map(|entry| entry.unwrap().path());
    let mut packages: Vec<(String, PathBuf)> = paths
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            let version = name.strip_prefix("outrigger-")?.strip_suffix(".tgz")?.to_owned();
            Some((version, path))
        })
        .collect();
    packages.sort_by_key(|(version, _)| numbers(version));
    packages
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|number| number.parse().unwrap()).collect()
}

#[test]
fn the_chart_has_a_later_version_than_every_one_that_was_published() {
    let now = chart::version().unwrap();
    let (newest, path) = published().pop().unwrap();
    assert!(numbers(&newest) < numbers(&now), "{now} is not after {newest}");
    let shown = helm(&["show", "chart", &path.display().to_string()])
        .ok()
        .unwrap();
    assert!(shown.contains(&format!("\nversion: {newest}\n")), "{shown}");
}

/// Whoever looks for what belongs to Outrigger finds all of it by one label, and each part by another.
#[test]
fn every_object_has_the_labels_that_are_recommended() {
    const ALL: [&str; 2] = ["name: outrigger\n", "component: "];
    // What the plugin prints as well has no release and no version.
    const OF_RELEASE: [&str; 3] = ["instance: outrigger\n", "part-of: outrigger\n", "version: "];
    for rendering in RENDERINGS {
        let rendered = fs::read_to_string(rendering.path()).unwrap();
        let objects: Vec<&str> = rendered
            .split("\n---\n")
            .filter(|one| one.contains("\nkind: "))
            .collect();
        assert!(objects.len() > 20, "{}", rendering.file);
        for object in objects {
            let is_printed = object.contains("\napiVersion: admissionregistration.k8s.io/");
            let of_release: &[&str] = if is_printed { &[] } else { &OF_RELEASE };
            for label in ALL.iter().chain(of_release) {
                let line = format!("\n    app.kubernetes.io/{label}");
                assert!(
                    object.contains(&line),
                    "{}: no {line} in {object}",
                    rendering.file
                );
            }
        }
    }
}

#[test]
fn a_server_that_cannot_inject_by_policy_is_told_the_other_way() {
    let older = ["template", chart::NAME, &chart_path(), "--kube-version=1.35.0"];
    let refused = helm(&older);
    assert!(!refused.status.success());
    assert!(
        refused
            .stderr
            .contains("and this is v1.35.0: set injection.by=webhook"),
        "{refused:?}"
    );
    helm(&[&older[..], &["--set=injection.by=webhook"]].concat())
        .ok()
        .unwrap();
}
