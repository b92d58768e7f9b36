//! Facts in, lines out: every outcome of every check.

mod before;
mod parts;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::super::facts::{
    Agent, Answer, ApiServer, Injection, Installed, Known, Needed, Pods, Policy, Roots, Unknown, Webhook,
    Workload,
};
use super::super::judge;
use super::super::report::{Check, CheckReport, Outcome};
use crate::kubernetes::{OwnRight, SeenNode, SeenPod, Server, Tried};
use crate::observe::{NodeStatus, PodStatus, Problem};

const DAY: u64 = 24 * 60 * 60;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY)
}

fn forbidden() -> Unknown {
    Unknown {
        is_forbidden: true,
        why: "ann may not".into(),
    }
}

fn broken() -> Unknown {
    Unknown {
        is_forbidden: false,
        why: "connection reset".into(),
    }
}

fn server(minor: u32) -> ApiServer {
    ApiServer {
        address: "https://10.0.0.1:6443".into(),
        server: Ok(Server {
            version: format!("v1.{minor}.4"),
            minor,
            time: Some(now()),
        }),
        now: now(),
    }
}

fn node(name: &str) -> SeenNode {
    SeenNode {
        name: name.into(),
        is_ready: true,
        os: "linux".into(),
        architecture: "amd64".into(),
        kernel: "6.1.0-13-amd64".into(),
        runtime: "containerd://2.1.4".into(),
        kubelet: "v1.36.4".into(),
    }
}

fn agent(node: &str) -> Agent {
    Agent {
        node: node.into(),
        pod: format!("outrigger-agent-{node}"),
        is_ready: true,
        answer: Answer::Told(Box::new(NodeStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            time: humantime::format_rfc3339_millis(now()).to_string(),
            ..NodeStatus::default()
        })),
        asked: now(),
    }
}

fn seen(name: &str, is_meshed: bool) -> SeenPod {
    SeenPod {
        namespace: "shop".into(),
        name: name.into(),
        node: Some("node-1".into()),
        phase: "Running".into(),
        is_ready: true,
        is_meshed,
        ..SeenPod::default()
    }
}

fn told(name: &str, sidecar: &'static str, problem: Option<&str>) -> PodStatus {
    PodStatus {
        pod: format!("shop/{name}"),
        sidecar: sidecar.into(),
        identity: None,
        version: (sidecar == "serving").then(|| env!("CARGO_PKG_VERSION").into()),
        since: None,
        open_flows: None,
        closed_flows: 0,
        failed_flows: 0,
        refused_askers: 0,
        problems: problem
            .iter()
            .map(|what| Problem {
                what: (*what).into(),
                remedy: "look into its log".into(),
            })
            .collect(),
    }
}

/// Everything is fine.
fn fine() -> Installed {
    let needed = |is_must| Needed {
        right: OwnRight::new("get", "outrigger.example", "flows").within("shop"),
        purpose: "flows",
        is_must,
        remedy: "kubectl create rolebinding".into(),
    };
    Installed {
        rights: Ok(vec![(needed(true), true), (needed(false), true)]),
        control: Ok(Some(Workload {
            wanted: 2,
            ready: 2,
            version: Some("0.1.0".into()),
        })),
        roots: Ok(Some(Roots::Until(vec![now() + Duration::from_secs(400 * DAY)]))),
        injection: Injection {
            policy: Ok(Some(Policy {
                failure_policy: "Fail".into(),
                unbound: Vec::new(),
            })),
            webhook: Ok(None),
            missing_guards: Ok(Vec::new()),
            tried_in: "default".into(),
            asked_itself: true,
            tried: Ok(Tried::Injected),
        },
        nodes: Ok(vec![node("node-1"), node("node-2")]),
        agents: Ok(vec![agent("node-1"), agent("node-2")]),
        pods: Pods {
            namespace: Some("shop".into()),
            told: vec![told("web-0", "serving", None)],
            untold: BTreeMap::new(),
            seen: Ok(vec![seen("web-0", true)]),
            labels: Ok([("shop".to_owned(), Some("enabled".to_owned()))].into()),
        },
    }
}

fn check<'r>(report: &'r CheckReport, id: &str) -> &'r Check {
    let mut all = report.categories.iter().flat_map(|category| &category.checks);
    all.find(|check| check.id == id)
        .unwrap_or_else(|| panic!("no {id}: {report:?}"))
}

/// What becomes of one check when something is spoilt; all others stay fine.
fn spoilt(id: &str, spoil: impl FnOnce(&mut Installed)) -> (Outcome, String) {
    let mut installed = fine();
    spoil(&mut installed);
    of(&judge::installed(&server(36), &installed), id)
}

fn of(report: &CheckReport, id: &str) -> (Outcome, String) {
    let Check {
        result,
        reason,
        remedy,
        ..
    } = check(report, id);
    assert!(*result == Outcome::Ok || remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()));
    (*result, reason.clone().unwrap_or_default())
}

fn has(of: (Outcome, String), outcome: Outcome, words: &str) {
    assert_eq!(of.0, outcome, "{}", of.1);
    assert!(of.1.contains(words), "{words:?} is not in {:?}", of.1);
}

#[test]
fn where_all_is_fine_each_line_says_so() {
    let report = judge::installed(&server(36), &fine());
    let wrong: Vec<&Check> = report
        .categories
        .iter()
        .flat_map(|category| &category.checks)
        .filter(|check| check.result != Outcome::Ok)
        .collect();
    assert!(wrong.is_empty() && report.succeeded, "{wrong:?}");
    let names: Vec<&str> = report.categories.iter().map(|category| &*category.name).collect();
    assert_eq!(
        names,
        [
            "API server",
            "your rights",
            "control",
            "injection",
            "agents",
            "pods of the namespace shop"
        ]
    );
}

#[test]
fn the_api_server_is_reached_new_enough_and_on_time() {
    let away = ApiServer {
        server: Err(broken()),
        ..server(36)
    };
    let report = judge::unreachable(&away);
    assert!(!report.succeeded);
    has(
        of(&report, "api-server-reachable"),
        Outcome::Failed,
        "connection reset",
    );

    let version = |minor| of(&judge::installed(&server(minor), &fine()), "api-server-version");
    has(version(32), Outcome::Failed, "1.33");
    has(version(35), Outcome::Failed, "1.36");
    has(version(36), Outcome::Ok, "");
    let mut by_webhook = fine();
    by_webhook.injection.policy = Ok(None);
    let report = judge::installed(&server(33), &by_webhook);
    has(
        of(&report, "api-server-version"),
        Outcome::Warning,
        "by webhook before",
    );

    for (apart, words) in [(31, "31 s ahead"), (30, "")] {
        let mut late = server(36);
        late.now -= Duration::from_secs(apart);
        let outcome = if words.is_empty() {
            Outcome::Ok
        } else {
            Outcome::Warning
        };
        has(
            of(&judge::installed(&late, &fine()), "api-server-clock"),
            outcome,
            words,
        );
    }
    let mut early = server(36);
    early.now += Duration::from_secs(90);
    has(
        of(&judge::installed(&early, &fine()), "api-server-clock"),
        Outcome::Warning,
        "90 s behind",
    );
}

#[test]
fn a_right_that_is_missing_is_named_and_fails_where_hardly_anything_works_without() {
    let missing = |n: usize| {
        move |installed: &mut Installed| {
            let mut rights = installed.rights.clone().unwrap();
            rights.swap(0, n);
            rights[0].1 = false;
            installed.rights = Ok(rights);
        }
    };
    let words = "you may not get flows.outrigger.example in the namespace shop";
    has(spoilt("rights", missing(0)), Outcome::Failed, words);
    has(spoilt("rights", missing(1)), Outcome::Warning, words);
    has(
        spoilt("rights", |installed| installed.rights = Err(broken())),
        Outcome::Failed,
        "connection reset",
    );
}

#[test]
fn control_is_ready_partly_stopped_or_not_there() {
    let control = |wanted, ready| {
        spoilt("control-ready", |installed| {
            installed.control = Ok(Some(Workload {
                wanted,
                ready,
                version: None,
            }));
        })
    };
    has(control(2, 1), Outcome::Warning, "of 2 replicas 1 are ready");
    has(control(2, 0), Outcome::Failed, "none is ready");
    has(control(0, 0), Outcome::Failed, "stopped");
    has(control(1, 1), Outcome::Ok, "");
    has(
        spoilt("control-ready", |installed| installed.control = Ok(None)),
        Outcome::Failed,
        "no Deployment",
    );
    has(
        spoilt("control-ready", |installed| installed.control = Err(forbidden())),
        Outcome::Warning,
        "ann may not",
    );
}

#[test]
fn roots_are_good_for_long_soon_over_over_or_not_there() {
    let roots = |ends: &[i64]| {
        spoilt("control-roots", |installed| {
            let ends = ends.iter().map(|days| match days.unsigned_abs() * DAY {
                seconds if *days < 0 => now() - Duration::from_secs(seconds),
                seconds => now() + Duration::from_secs(seconds),
            });
            installed.roots = Ok(Some(Roots::Until(ends.collect())));
        })
    };
    has(roots(&[60]), Outcome::Ok, "");
    has(roots(&[59]), Outcome::Warning, "they end in 59 days");
    has(roots(&[-1, 400]), Outcome::Ok, "");
    has(roots(&[-1]), Outcome::Failed, "have ended");
    has(roots(&[]), Outcome::Failed, "none among them");
    let mut broken = fine();
    broken.roots = Ok(Some(Roots::Unreadable("it is no PEM".into())));
    has(
        of(&judge::installed(&server(36), &broken), "control-roots"),
        Outcome::Failed,
        "no PEM",
    );
    has(
        spoilt("control-roots", |installed| installed.roots = Ok(None)),
        Outcome::Failed,
        "outrigger-ca",
    );
}
