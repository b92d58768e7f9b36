//! Sidecars come into pods: by the API server's own policies, by the webhook and by files, and all of them are the same. Starts none:
//! the API server says what it would keep.

#[path = "injection/door.rs"]
mod door;

#[path = "injection/webhook.rs"]
mod webhook;

use harness::cluster::Namespace;
use harness::wait::{self, SOON};
use serde_json::{Value, json};

use door::{Door, by_file, cases, comparable, has_sidecar, kubectl, plain, try_to_create, try_to_create_as};

fn everything(_: &str) -> bool {
    true
}

/// The server takes no pod whose class it does not know.
fn with_runtime_class(door: &mut Door) {
    let name = door.runtime_class();
    door.apply(&[json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": name }, "handler": "runc" })]);
}

/// Every case, by this door.
fn every_case_ends_as_it_says(door: &Door, namespace: &Namespace) {
    for (name, pod, case) in cases(door) {
        let created = try_to_create(namespace, &pod);
        match case["result"].as_str().unwrap() {
            "injected" => {
                let created = created.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(has_sidecar(&created), "{name}: {created:#}");
                if case["qos"].is_string() {
                    assert_eq!(created["status"]["qosClass"], case["qos"], "{name}");
                }
                // The file's pod has its sidecar already when it comes: nothing is added a second time.
                let file = try_to_create(namespace, &by_file(&pod).unwrap());
                let file = file.unwrap_or_else(|error| panic!("{name}, by file: {error}"));
                assert_eq!(comparable(&created), comparable(&file), "{name}");
            }
            "not-asked-for" | "windows" | "static" => {
                assert!(
                    !has_sidecar(&created.unwrap_or_else(|error| panic!("{name}: {error}"))),
                    "{name}"
                );
            }
            _ => {
                let said = by_file(&pod).unwrap_err();
                let reason = said.lines().last().unwrap().splitn(3, ": ").nth(2).unwrap();
                let first = reason.split("; ").next().unwrap();
                let error = created.expect_err(&name);
                assert!(error.contains(first), "{name}: {error} does not say: {first}");
            }
        }
    }
}

#[test]
fn policies_and_files_make_the_same_pod_and_refuse_the_same_for_the_same_reason() {
    let mut door = Door::open("--policies", everything);
    with_runtime_class(&mut door);
    let namespace = door.enabled(&[]);
    every_case_ends_as_it_says(&door, &namespace);
}

#[test]
fn a_pod_is_left_alone_unless_its_namespace_or_itself_asks_and_its_own_word_wins() {
    let door = Door::open("--policies", everything);
    let mut asks = plain();
    asks["metadata"]["labels"] = json!({ door.label(): "enabled" });
    let injects_who_asks =
        |namespace: &Namespace| try_to_create(namespace, &asks).is_ok_and(|pod| has_sidecar(&pod));
    let namespace = door.namespace(&[], injects_who_asks);
    let untouched = try_to_create(&namespace, &plain()).unwrap();
    assert!(!untouched.to_string().contains("outrigger-"), "{untouched:#}");
    assert!(untouched["metadata"]["annotations"].is_null());

    let enabled = door.enabled(&[]);
    let created = try_to_create(&enabled, &asks).unwrap();
    let count = |field: &str| created["spec"][field].as_array().unwrap().len();
    assert_eq!(
        (count("initContainers"), count("volumes")),
        (1, 4),
        "both ways at once are one"
    );
}

#[test]
fn a_restricted_namespace_takes_the_sidecar_and_refuses_what_it_refused_before() {
    let door = Door::open("--policies", everything);
    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    let mut confined = plain();
    confined["spec"]["containers"][0]["securityContext"] = json!({
        "runAsNonRoot": true,
        "runAsUser": 1000,
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    let injects_confined =
        |namespace: &Namespace| try_to_create(namespace, &confined).is_ok_and(|pod| has_sidecar(&pod));
    let namespace = door.enabled_once(&[restricted], injects_confined);
    let error = try_to_create(&namespace, &plain()).unwrap_err();
    assert!(
        error.contains("violates PodSecurity") && !error.contains("outrigger-proxy"),
        "{error}"
    );
}

#[test]
fn a_limit_range_holds_for_the_sidecar_too() {
    let door = Door::open("--policies", everything);
    let namespace = door.enabled(&[]);
    let limits = json!({ "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "some" }, "spec": { "limits": [{
        "type": "Container", "default": { "cpu": "700m" }, "defaultRequest": { "cpu": "30m", "memory": "40Mi" } }] } });
    namespace.apply(&[limits]).unwrap();
    let resources = |pod: &Value| pod["spec"]["initContainers"][0]["resources"].clone();
    wait::until("the range is in force", SOON, || {
        let pod = try_to_create(&namespace, &plain()).unwrap();
        resources(&pod)["limits"]["cpu"] == "700m"
    })
    .unwrap();
    let created = try_to_create(&namespace, &plain()).unwrap();
    let wanted = json!({ "requests": { "cpu": "20m", "memory": "32Mi" }, "limits": { "cpu": "700m", "memory": "256Mi" } });
    assert_eq!(resources(&created), wanted, "what it says itself stays");
    let file = try_to_create(&namespace, &by_file(&plain()).unwrap()).unwrap();
    assert_eq!(comparable(&created), comparable(&file));
}

#[test]
fn whatever_makes_pods_makes_them_with_sidecars() {
    let door = Door::open("--policies", everything);
    let namespace = door.enabled(&[]);
    let mut template = json!({ "spec": plain()["spec"] });
    template["spec"]["restartPolicy"] = "Never".into();
    let job = json!({ "template": template, "backoffLimit": 0 });
    let metadata = json!({ "name": "task" });
    let once = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job });
    let often = json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata,
        "spec": { "schedule": "0 0 1 1 *", "jobTemplate": { "spec": job } } });
    for object in [&once, &often] {
        let file = by_file(object).unwrap();
        assert!(file.to_string().contains("outrigger-proxy"), "{file}");
        try_to_create(&namespace, &file).unwrap();
    }
    namespace.apply(&[once, often]).unwrap();
    let run = [
        "--namespace",
        namespace.name(),
        "create",
        "job",
        "now",
        "--from=cronjob/task",
    ];
    kubectl().run(&run).unwrap();
    for name in ["task", "now"] {
        let selector = format!("--selector=batch.kubernetes.io/job-name={name}");
        let made = wait::until_some("the job's pod", SOON, || {
            Ok(namespace.get(&["pods", &selector])?["items"].get(0).cloned())
        });
        assert!(has_sidecar(&made.unwrap()), "{name}");
    }
}

#[test]
fn a_pod_that_would_start_without_its_sidecar_at_the_first_place_does_not_start() {
    let door = Door::open("--policies", |kind| kind.starts_with("Validating"));
    let refuses = |namespace: &Namespace| try_to_create(namespace, &plain()).is_err();
    let namespace = door.enabled_once(&[], refuses);
    let error = try_to_create(&namespace, &plain()).unwrap_err();
    door.demand_refusal("outrigger-require", "it has no sidecar", &error);
    assert!(error.contains("inject: disabled"), "{error}");

    let mut behind = by_file(&plain()).unwrap();
    try_to_create(&namespace, &behind).unwrap();
    let first = json!({ "name": "first", "image": door::IMAGE });
    behind["spec"]["initContainers"]
        .as_array_mut()
        .unwrap()
        .insert(0, first);
    let error = try_to_create(&namespace, &behind).unwrap_err();
    door.demand_refusal("outrigger-require", "has to be the first", &error);

    let mut no_native = by_file(&plain()).unwrap();
    no_native["spec"]["initContainers"][0]
        .as_object_mut()
        .unwrap()
        .remove("restartPolicy");
    for field in ["startupProbe", "readinessProbe", "livenessProbe", "lifecycle"] {
        no_native["spec"]["initContainers"][0]
            .as_object_mut()
            .unwrap()
            .remove(field);
    }
    let error = try_to_create(&namespace, &no_native).unwrap_err();
    door.demand_refusal("outrigger-require", "has to be the first", &error);

    let mut out = plain();
    out["metadata"]["labels"] = json!({ door.label(): "disabled" });
    try_to_create(&namespace, &out).unwrap();
}

#[test]
fn nobody_comes_into_a_running_pod_as_the_sidecars_user() {
    const SIDECAR: u32 = 52009;
    let door = Door::open_about(door::USER, &SIDECAR.to_string());
    let namespace = door.enabled(&[]);
    namespace.apply(&[plain()]).unwrap();
    let debug = |user: u32| {
        let custom = std::env::temp_dir().join(format!("outrigger-{}-{user}.json", namespace.name()));
        std::fs::write(
            &custom,
            json!({ "securityContext": { "runAsUser": user } }).to_string(),
        )
        .unwrap();
        let custom_flag = format!("--custom={}", custom.display());
        let image = format!("--image={}", door::IMAGE);
        let container = format!("--container=user-{user}");
        let args = [
            "--namespace",
            namespace.name(),
            "debug",
            "plain",
            &image,
            &container,
            &custom_flag,
            "--profile=general",
        ];
        let output = kubectl().output(&args).unwrap();
        std::fs::remove_file(custom).unwrap();
        output
    };
    let refused = debug(SIDECAR);
    assert!(!refused.status.success(), "{refused:?}");
    door.demand_refusal("outrigger-user", "user 52009 is the sidecar's", &refused.stderr);
    let taken = debug(1000);
    assert!(taken.status.success(), "{taken:?}");
}

#[test]
fn an_agent_speaks_for_its_own_node_only() {
    const ACCOUNT: &str = "another-agent";
    const USER: &str = "system:serviceaccount:outrigger-system:another-agent";
    let door = Door::open_about(door::AGENT, USER);
    let namespace = door.enabled(&[]);
    let subject = json!({ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": "outrigger-system" });
    namespace
        .apply(&[
            json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "agent" },
                "rules": [{ "apiGroups": [""], "resources": ["events"], "verbs": ["create"] }] }),
            json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "agent" },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "agent" }, "subjects": [subject] }),
        ])
        .unwrap();
    let event = |host: &str| {
        json!({ "apiVersion": "v1", "kind": "Event", "metadata": { "name": "said" }, "reason": "Said", "message": "x", "type": "Warning",
            "involvedObject": { "kind": "Pod", "name": "plain", "namespace": namespace.name() },
            "source": { "component": "outrigger-agent", "host": host } })
    };
    let agent = &*format!("--as={USER}");
    let node = "--as-user-extra=authentication.kubernetes.io/node-name=node-1";
    wait::until("the role is in force", SOON, || {
        try_to_create_as(&namespace, &event("node-1"), &[agent, node]).is_ok()
    })
    .unwrap();
    for (host, flags) in [
        ("node-2", vec![agent, node]),
        ("node-1", vec![agent]),
        ("", vec![agent]),
    ] {
        let error = try_to_create_as(&namespace, &event(host), &flags).unwrap_err();
        door.demand_refusal("outrigger-agent", "speaks for its own node only", &error);
    }
    try_to_create(&namespace, &event("node-2")).unwrap();
}
