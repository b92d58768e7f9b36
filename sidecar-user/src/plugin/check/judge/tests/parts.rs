//! Injection, agents and pods.

use super::*;

#[test]
fn injection_is_in_force_by_one_way_and_guarded() {
    let by_policy = |failure: &str, unbound: &[&str]| {
        spoilt("injection-way", |installed| {
            installed.injection.policy = Ok(Some(Policy {
                failure_policy: failure.into(),
                unbound: unbound.iter().map(|name| (*name).to_owned()).collect(),
            }));
        })
    };
    has(by_policy("Ignore", &[]), Outcome::Warning, "Ignore");
    has(
        by_policy("Fail", &["outrigger-inject-pod"]),
        Outcome::Failed,
        "outrigger-inject-pod",
    );
    let by_webhook = |failure: &str, has_roots: bool, policy: bool| {
        spoilt("injection-way", |installed| {
            if !policy {
                installed.injection.policy = Ok(None);
            }
            installed.injection.webhook = Ok(Some(Webhook {
                failure_policy: failure.into(),
                has_roots,
            }));
        })
    };
    has(by_webhook("Fail", true, false), Outcome::Ok, "");
    has(
        by_webhook("Ignore", true, false),
        Outcome::Warning,
        "while control is away",
    );
    has(by_webhook("Fail", false, false), Outcome::Failed, "caBundle");
    has(
        by_webhook("Fail", true, true),
        Outcome::Failed,
        "a policy and a webhook",
    );
    has(
        spoilt("injection-way", |installed| installed.injection.policy = Ok(None)),
        Outcome::Failed,
        "neither",
    );
    has(
        spoilt("injection-way", |installed| {
            installed.injection.policy = Err(forbidden())
        }),
        Outcome::Warning,
        "ann may not",
    );
    has(
        spoilt("injection-guards", |installed| {
            installed.injection.missing_guards = Ok(vec!["outrigger-require".into()]);
        }),
        Outcome::Warning,
        "outrigger-require",
    );
    let tried =
        |tried: Known<Tried>| spoilt("injection-tried", |installed| installed.injection.tried = tried);
    has(
        tried(Ok(Tried::NotInjected)),
        Outcome::Failed,
        "would not be secured",
    );
    has(
        tried(Ok(Tried::Refused("denied".into()))),
        Outcome::Failed,
        "refused: denied",
    );
    has(tried(Err(forbidden())), Outcome::Warning, "ann may not");
}

#[test]
fn an_agent_is_on_every_node_ready_proven_on_time_and_of_this_version() {
    let with = |id: &str, change: fn(&mut Vec<Agent>)| {
        spoilt(id, |installed| change(installed.agents.as_mut().unwrap()))
    };
    has(
        with("agents-everywhere", |agents| drop(agents.pop())),
        Outcome::Failed,
        "none is on node-2",
    );
    has(
        spoilt("agents-everywhere", |installed| {
            installed.agents.as_mut().unwrap().pop();
            installed.nodes.as_mut().unwrap()[1].is_ready = false;
        }),
        Outcome::Warning,
        "node-2, which is not ready",
    );
    has(
        spoilt("agents-everywhere", |installed| {
            installed.agents.as_mut().unwrap().pop();
            installed.nodes.as_mut().unwrap()[1].os = "windows".into();
        }),
        Outcome::Ok,
        "",
    );
    has(
        with("agents-ready", |agents| agents[1].is_ready = false),
        Outcome::Failed,
        "that of node-2",
    );
    has(
        with("agents-answer", |agents| {
            agents[0].answer = Answer::None("no certificate".into())
        }),
        Outcome::Failed,
        "not on node-1: no certificate",
    );
    has(
        with("agents-answer", |agents| {
            agents[0].answer = Answer::Withheld("ann may not get nodes.outrigger.example".into());
        }),
        Outcome::Warning,
        "nodes.outrigger.example",
    );
    has(
        with("agents-clock", |agents| {
            agents[1].asked -= Duration::from_secs(45)
        }),
        Outcome::Warning,
        "not on node-2: up to 45 s",
    );
    let versions = |agents: &mut Vec<Agent>, all: bool| {
        for agent in agents.iter_mut().skip(usize::from(!all)) {
            if let Answer::Told(status) = &mut agent.answer {
                status.version = "99.0.0".into();
            }
        }
    };
    has(
        spoilt("agents-version", |installed| {
            versions(installed.agents.as_mut().unwrap(), true)
        }),
        Outcome::Warning,
        "they are of version 99.0.0",
    );
    has(
        spoilt("agents-version", |installed| {
            versions(installed.agents.as_mut().unwrap(), false)
        }),
        Outcome::Warning,
        "they differ",
    );
    has(
        spoilt("agents", |installed| installed.agents = Err(forbidden())),
        Outcome::Warning,
        "ann may not",
    );
}

#[test]
fn pods_have_sidecars_that_serve_or_a_reason() {
    let state = |sidecar: &'static str, problem: Option<&str>| {
        spoilt("pods-serving", |installed| {
            installed.pods.told.push(told("web-1", sidecar, problem));
        })
    };
    has(
        state("waiting", Some("x")),
        Outcome::Failed,
        "no sidecar holds, so their connections are refused: shop/web-1",
    );
    has(
        state("silent", Some("x")),
        Outcome::Failed,
        "do not answer: shop/web-1",
    );
    has(
        state("refused", Some("x")),
        Outcome::Failed,
        "run without: shop/web-1",
    );
    has(
        state("serving", Some("no certificate")),
        Outcome::Failed,
        "not ready: shop/web-1",
    );
    for good in ["serving", "lame-duck", "draining", "gone"] {
        has(state(good, None), Outcome::Ok, "");
    }
    let bare = |change: fn(&mut SeenPod)| {
        spoilt("pods-meshed", |installed| {
            let mut pod = seen("bare", false);
            change(&mut pod);
            installed.pods.seen.as_mut().unwrap().push(pod);
        })
    };
    has(bare(|_| ()), Outcome::Warning, "without one: shop/bare");
    has(bare(|pod| pod.inject = Some("disabled".into())), Outcome::Ok, "");
    has(bare(|pod| pod.phase = "Succeeded".into()), Outcome::Ok, "");
    has(
        spoilt("pods-meshed", |installed| {
            installed.pods.labels = Err(forbidden())
        }),
        Outcome::Warning,
        "ann may not",
    );
    has(
        spoilt("pods-known", |installed| {
            installed.pods.seen.as_mut().unwrap().push(seen("new", true));
        }),
        Outcome::Warning,
        "no agent knows shop/new",
    );
    has(
        spoilt("pods-version", |installed| {
            installed.pods.told[0].version = Some("0.0.1".into())
        }),
        Outcome::Warning,
        "0.0.1 (1)",
    );
    let untold = |unknown| {
        spoilt("pods-told", |installed| {
            installed.pods.untold.insert("node-2".into(), unknown);
        })
    };
    has(
        untold(broken()),
        Outcome::Failed,
        "not on node-2: connection reset",
    );
    has(untold(forbidden()), Outcome::Failed, "ann may not");
}
