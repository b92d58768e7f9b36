//! The cases that the tests of the cluster try on the real API server, too.

use serde_json::{Value, json};

use super::*;

const CASES: &str = include_str!("../../../tests/cluster/injection/cases.json");

fn profile() -> Profile {
    Profile::new("x:1")
}

fn enabled() -> Namespace {
    Namespace {
        name: "shop".to_owned(),
        is_enabled: true,
    }
}

fn cases() -> Vec<Value> {
    serde_json::from_str::<Value>(CASES)
        .unwrap()
        .as_array()
        .unwrap()
        .clone()
}

fn plain() -> Value {
    cases()[0]["pod"].clone()
}

fn injected(pod: &Value) -> Injected {
    inject(pod, &enabled(), &profile()).unwrap()
}

fn refused(pod: &Value, namespace: &Namespace) -> Vec<&'static str> {
    let refusals = inject(pod, namespace, &profile()).unwrap_err();
    refusals.iter().map(|refusal| refusal.rule).collect()
}

/// By the book (RFC 6902), and not by our own code.
fn patched(pod: &Value, patch: &[Value]) -> Value {
    let mut pod = pod.clone();
    for operation in patch {
        assert_eq!(operation["op"], "add");
        let (parent, last) = operation["path"].as_str().unwrap().rsplit_once('/').unwrap();
        let value = operation["value"].clone();
        match pod.pointer_mut(parent).expect("the parent has to exist") {
            Value::Array(items) if last == "-" => items.push(value),
            Value::Array(items) => items.insert(last.parse().unwrap(), value),
            Value::Object(fields) => drop(fields.insert(last.replace("~1", "/").replace("~0", "~"), value)),
            other => panic!("{other} has no members"),
        }
    }
    pod
}

#[test]
fn each_case_ends_as_it_says() {
    for case in cases() {
        let (name, pod) = (&case["name"], &case["pod"]);
        let said = match inject(pod, &enabled(), &profile()) {
            Ok(injected) => {
                let warnings = case["warnings"].as_u64().unwrap_or(0);
                assert_eq!(
                    injected.warnings.len() as u64,
                    warnings,
                    "{name}: {:?}",
                    injected.warnings
                );
                "injected"
            }
            Err(refusals) => refusals[0].rule,
        };
        assert_eq!(case["result"], said, "{name}");
    }
}

#[test]
fn the_sidecar_is_first_and_everything_else_of_the_pod_stays() {
    for case in cases().iter().filter(|case| case["result"] == "injected") {
        let before = &case["pod"];
        let Injected { pod, patch, .. } = injected(before);
        assert_eq!(
            pod["spec"]["initContainers"][0]["name"], "outrigger-proxy",
            "{}",
            case["name"]
        );
        assert_eq!(pod["spec"]["initContainers"][0]["restartPolicy"], "Always");
        assert_eq!(
            patched(before, &patch),
            pod,
            "{}: the patch leads to the same",
            case["name"]
        );
        assert_eq!(
            uninject(&pod).as_ref(),
            Some(before),
            "{}: and it leads back",
            case["name"]
        );
    }
}

#[test]
fn a_profile_of_pod_certificates_gives_files_in_the_place_of_a_token_and_nothing_else_differs() {
    let mut profile = profile();
    profile.identity = "pod-certificates".to_owned();
    for case in cases().iter().filter(|case| case["result"] == "injected") {
        let before = &case["pod"];
        let Injected { pod, patch, .. } = inject(before, &enabled(), &profile).unwrap();
        assert_eq!(patched(before, &patch), pod, "{}", case["name"]);
        assert_eq!(uninject(&pod).as_ref(), Some(before), "{}", case["name"]);
        let text = pod.to_string();
        if before["metadata"]["annotations"]["outrigger.example/attach"] == "self" {
            // It shows its token to control in any case, and asks for its certificates by that, too.
            assert!(
                text.contains("outrigger-token") && !text.contains("outrigger-identity"),
                "{text}"
            );
            continue;
        }
        assert!(
            !text.contains("serviceAccountToken") && !text.contains("outrigger-token"),
            "{text}"
        );
        assert!(
            !text.contains("OUTRIGGER_TOKEN_FILE") && !text.contains("OUTRIGGER_AUTHORITY\""),
            "{text}"
        );
        let mut both = [injected(before).pod, pod];
        for pod in &mut both {
            let sidecar = &mut pod["spec"]["initContainers"][0];
            let env = sidecar["env"].as_array_mut().unwrap();
            env.retain(|variable| {
                let name = variable["name"].as_str().unwrap();
                ![
                    "AUTHORITY",
                    "TOKEN_FILE",
                    "REFRESH",
                    "IDENTITY_BUNDLE",
                    "AUTHORITY_ROOTS",
                ]
                .contains(&name.trim_start_matches("OUTRIGGER_"))
            });
            sidecar["volumeMounts"][0]["name"] = "either".into();
            let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
            let length = volumes.len();
            volumes.retain(|volume| {
                volume["projected"].is_null() || !volume["name"].as_str().unwrap().starts_with("outrigger-")
            });
            assert_eq!(volumes.len(), length - 1);
            pod["metadata"]["annotations"]
                .as_object_mut()
                .unwrap()
                .remove("outrigger.example/status");
        }
        assert_eq!(both[0], both[1], "{}", case["name"]);
    }
    // The key of the pod is mounted by nobody else.
    let pod = inject(&plain(), &enabled(), &profile).unwrap().pod;
    let mounts = |list: &str| {
        pod["spec"][list]
            .to_string()
            .matches("outrigger-identity")
            .count()
    };
    assert_eq!((mounts("initContainers"), mounts("containers")), (1, 0));
}

#[test]
fn a_pod_that_has_its_sidecar_is_left_alone() {
    let once = injected(&plain()).pod;
    let twice = injected(&once);
    assert_eq!((&twice.pod, twice.patch.len()), (&once, 0));
    assert_eq!(uninject(&plain()), None);
}

#[test]
fn unknown_fields_survive() {
    let mut pod = plain();
    pod["spec"]["fieldOfTheFuture"] = json!({ "a": [1] });
    pod["spec"]["containers"][0]["another"] = json!(1.5);
    let pod = injected(&pod).pod;
    assert_eq!(pod["spec"]["fieldOfTheFuture"], json!({ "a": [1] }));
    assert_eq!(pod["spec"]["containers"][0]["another"], 1.5);
}

#[test]
fn the_pods_label_wins_over_its_namespaces() {
    let with = |word: &str| {
        let mut pod = plain();
        pod["metadata"]["labels"] = json!({ "outrigger.example/inject": word });
        pod
    };
    let disabled = Namespace {
        is_enabled: false,
        ..enabled()
    };
    assert!(inject(&with("enabled"), &disabled, &profile()).is_ok());
    assert_eq!(refused(&plain(), &disabled), ["not-asked-for"]);
    assert_eq!(refused(&with("disabled"), &enabled()), ["not-asked-for"]);
    assert_eq!(
        refused(&with("Enabled"), &disabled),
        ["not-asked-for"],
        "a slip is no yes"
    );
}

#[test]
fn system_namespaces_are_left_alone() {
    for name in ["kube-system", "outrigger-system"] {
        let namespace = Namespace {
            name: name.to_owned(),
            is_enabled: true,
        };
        assert_eq!(refused(&plain(), &namespace), ["system-namespace"]);
    }
}

#[test]
fn all_reasons_are_told_at_once() {
    let mut pod = plain();
    pod["spec"]["hostNetwork"] = true.into();
    pod["spec"]["runtimeClassName"] = "Kata-qemu".into();
    assert_eq!(refused(&pod, &enabled()), ["host-network", "runtime"]);
}

#[test]
fn requests_are_limits_only_where_the_pod_is_guaranteed() {
    let requests_are_limits = |case: &str| {
        let all = cases();
        let case = all.iter().find(|each| each["name"] == case).unwrap();
        let resources = injected(&case["pod"]).pod["spec"]["initContainers"][0]["resources"].clone();
        resources["requests"] == resources["limits"] && resources["limits"]["cpu"] == "200m"
    };
    assert!(requests_are_limits("guaranteed"));
    assert!(!requests_are_limits("guaranteed-but-for-its-init-container"));
    assert!(!requests_are_limits("burstable"));
    assert!(!requests_are_limits("plain"));
}

#[test]
fn the_sidecar_has_no_token_of_the_api_server_and_fits_the_restricted_standard() {
    let pod = injected(&plain()).pod;
    let container = &pod["spec"]["initContainers"][0];
    let mounts = container["volumeMounts"].as_array().unwrap();
    let at = |path: &str| {
        let mount = mounts.iter().find(|mount| mount["mountPath"] == path).unwrap();
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        volumes
            .iter()
            .find(|volume| volume["name"] == mount["name"])
            .unwrap()
            .clone()
    };
    assert!(at("/var/run/secrets/kubernetes.io/serviceaccount")["emptyDir"].is_object());
    let token = at("/var/run/secrets/outrigger");
    assert_eq!(
        token["projected"]["sources"][0]["serviceAccountToken"]["audience"],
        "outrigger"
    );
    let security = &container["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert!(container["startupProbe"]["failureThreshold"].as_u64().unwrap() >= 120);
}

#[test]
fn pods_are_found_in_whatever_makes_them() {
    let spec = plain()["spec"].clone();
    let objects = [
        json!({ "kind": "Pod", "spec": spec }),
        json!({ "kind": "Deployment", "spec": { "template": { "spec": spec } } }),
        json!({ "kind": "StatefulSet", "spec": { "template": { "spec": spec } } }),
        json!({ "kind": "DaemonSet", "spec": { "template": { "spec": spec } } }),
        json!({ "kind": "ReplicaSet", "spec": { "template": { "spec": spec } } }),
        json!({ "kind": "Job", "spec": { "template": { "spec": spec } } }),
        json!({ "kind": "CronJob", "spec": { "jobTemplate": { "spec": { "template": { "spec": spec } } } } }),
        json!({ "kind": "List", "items": [{ "kind": "List", "items": [{ "kind": "Pod", "spec": spec }] }] }),
    ];
    for mut object in objects {
        let (before, mut wrong) = (object.clone(), Vec::new());
        change(&mut object, &mut |pod, _| Ok(injected(pod).pod), &mut wrong);
        assert!(
            object.to_string().contains("outrigger-proxy") && wrong.is_empty(),
            "{object}"
        );
        change(&mut object, &mut |pod, _| Ok(uninject(pod).unwrap()), &mut wrong);
        assert_eq!(object, before);
    }
    let mut other = json!({ "kind": "ConfigMap", "data": { "spec": "x" } });
    change(&mut other, &mut |_, _| panic!("it has no pod"), &mut Vec::new());
    let (mut broken, mut wrong) = (
        json!({ "kind": "Job", "metadata": { "name": "j" }, "spec": {} }),
        Vec::new(),
    );
    change(&mut broken, &mut |pod, _| Ok(pod.clone()), &mut wrong);
    assert_eq!(wrong[0].object, "Job j");
}

#[test]
fn words_mean_what_they_mean_to_kubectl() {
    let text = "a: [0644, 0o17, 0x1f, 1_000, -7, 1e3, 0.5, yes, off, y, 08, 1.2.3, '5', 12345678901234567890]\n\
                b: &b {c: 1}\nd: {<<: *b, e: 2}\n---\n---\nf: ~\n";
    assert_eq!(
        documents(text).unwrap(),
        [
            json!({
                "a": [420, 15, 31, 1000, -7, 1000, 0.5, true, false, "y", 8, "1.2.3", "5", 12345678901234567890_u64],
                "b": { "c": 1 },
                "d": { "c": 1, "e": 2 },
            }),
            json!({ "f": null }),
        ]
    );
}

#[test]
fn a_review_is_answered_with_the_same_patch() {
    let review_of = |pod: &Value, operation: &str| {
        let request = json!({ "uid": "u-1", "kind": { "kind": "Pod" }, "operation": operation, "namespace": "shop", "object": pod });
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request })
            .to_string()
    };
    let answer = review(review_of(&plain(), "CREATE").as_bytes(), &profile()).unwrap();
    assert_eq!(answer.result, "injected");
    let response = &answer.review["response"];
    assert_eq!(
        (&response["uid"], &response["allowed"]),
        (&json!("u-1"), &json!(true))
    );
    let patch = Value::from(injected(&plain()).patch).to_string();
    assert_eq!(response["patch"], crate::kubernetes::base64(patch.as_bytes()));

    let mut host = plain();
    host["spec"]["hostNetwork"] = true.into();
    let answer = review(review_of(&host, "CREATE").as_bytes(), &profile()).unwrap();
    assert_eq!(
        (answer.result, &answer.review["response"]["allowed"]),
        ("host-network", &json!(true))
    );
    assert!(
        answer.review["response"]["warnings"][0]
            .as_str()
            .unwrap()
            .contains("hostNetwork")
    );

    let twice = injected(&plain()).pod;
    assert_eq!(
        review(review_of(&twice, "CREATE").as_bytes(), &profile())
            .unwrap()
            .result,
        "unchanged"
    );
    assert_eq!(
        review(review_of(&twice, "DELETE").as_bytes(), &profile()),
        Err(BadReview::NoPod)
    );
    assert_eq!(review(b"{}", &profile()), Err(BadReview::OtherKind));
    assert_eq!(review(b"\xff", &profile()), Err(BadReview::NoJson));
}

#[test]
fn a_policy_has_a_condition_for_each_refusal_and_no_more_than_the_server_takes() {
    let objects = policies(&profile());
    let conditions = objects[0]["spec"]["matchConditions"].as_array().unwrap();
    let names: Vec<&str> = conditions
        .iter()
        .map(|condition| condition["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), refusals::RULES.len() + 1);
    assert!(
        names.contains(&"not-host-network") && names.len() <= 64,
        "{names:?}"
    );
    assert_eq!(objects.len(), 3, "the policy, and two ways to it");
}
