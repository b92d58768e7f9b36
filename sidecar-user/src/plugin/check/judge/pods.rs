//! Are the pods secured: do their sidecars serve, and has each one that is to have one?

use super::super::facts::{Agent, Known, Pods};
use super::super::report::{Category, Check, listed, ok};
use crate::observe::PodStatus;
use crate::plugin::{unmeshed, versions};

pub(super) fn judge(pods: &Pods, agents: &Known<Vec<Agent>>) -> Category {
    let mut checks: Vec<Check> = untold(pods).into_iter().collect();
    checks.push(serving(&pods.told));
    checks.extend(without(pods));
    checks.extend(unknown(pods));
    checks.extend(versions_of(pods, agents));
    let name = match &pods.namespace {
        Some(namespace) => format!("pods of the namespace {namespace}"),
        None => "pods of all namespaces".to_owned(),
    };
    Category {
        name: name.into(),
        checks,
    }
}

fn untold(pods: &Pods) -> Option<Check> {
    let first = pods.untold.values().next()?;
    let check = ok("pods-told", "agents tell of their pods");
    let nodes = listed(pods.untold.keys().map(String::as_str));
    Some(match first.is_forbidden {
        true => check.failed(
            first.why.clone(),
            "without it nothing is known of pods and their connections",
        ),
        false => check.failed(
            format!("not on {nodes}: {}", first.why),
            "see what is wrong with the agents above",
        ),
    })
}

fn serving(pods: &[PodStatus]) -> Check {
    let of = |state: &str| pods.iter().filter(|pod| pod.sidecar == state).collect::<Vec<_>>();
    let (waiting, silent, refused) = (of("waiting"), of("silent"), of("refused"));
    let unready: Vec<&PodStatus> = pods
        .iter()
        .filter(|pod| pod.sidecar == "serving" && !pod.problems.is_empty())
        .collect();
    let all = pods.iter().filter(|pod| pod.sidecar != "gone").count();
    let good = all
        - [&waiting, &silent, &refused, &unready]
            .map(Vec::len)
            .iter()
            .sum::<usize>();
    let check = ok(
        "pods-serving",
        match all {
            0 => "no pod has a sidecar".to_owned(),
            _ if good == 1 => "1 sidecar serves".to_owned(),
            _ => format!("{good} sidecars serve"),
        },
    );
    let bad = [
        (waiting, "no sidecar holds, so their connections are refused"),
        (silent, "sidecars do not answer"),
        (refused, "can have no sidecar on their node, and run without"),
        (unready, "sidecars are not ready"),
    ];
    let reasons: Vec<String> = bad
        .iter()
        .filter(|(pods, _)| !pods.is_empty())
        .map(|(pods, what)| format!("{what}: {}", listed(pods.iter().map(|pod| &*pod.pod))))
        .collect();
    match reasons.is_empty() {
        true => check,
        false => {
            let first = bad
                .iter()
                .find_map(|(pods, _)| pods.first())
                .and_then(|pod| pod.problems.first());
            let remedy = first.map_or("kubectl outrigger status says more", |problem| &*problem.remedy);
            check.failed(reasons.join("; "), remedy)
        }
    }
}

/// Of pods that are to have a sidecar: those that have none.
fn without(pods: &Pods) -> Option<Check> {
    let check = ok("pods-meshed", "each pod that is to have a sidecar has one");
    let (seen, labels) = match (&pods.seen, &pods.labels) {
        (Ok(seen), Ok(labels)) => (seen, labels),
        (Err(unknown), _) | (_, Err(unknown)) => return Some(check.unknown(unknown)),
    };
    let label = |namespace: &str| labels.get(namespace).and_then(Option::as_deref);
    let without: Vec<_> = seen
        .iter()
        .filter(|pod| !pod.is_meshed && unmeshed::is_wanted(pod, label(&pod.namespace)))
        .collect();
    let Some(first) = without.first() else {
        return Some(check);
    };
    let names: Vec<String> = without
        .iter()
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .collect();
    let why = unmeshed::reason(first, Some(label(&first.namespace)));
    Some(check.warning(
        format!("without one: {}", listed(names.iter().map(String::as_str))),
        format!("{}: {why}", names[0]),
    ))
}

/// Pods with a sidecar that run, and of which no agent tells that was asked.
fn unknown(pods: &Pods) -> Option<Check> {
    let seen = pods.seen.as_ref().ok()?;
    let names: Vec<String> = seen
        .iter()
        .filter(|pod| pod.is_meshed && !pod.is_ending && pod.phase == "Running")
        .filter(|pod| {
            pod.node
                .as_ref()
                .is_some_and(|node| !pods.untold.contains_key(node))
        })
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .filter(|name| pods.told.iter().all(|told| told.pod != *name))
        .collect();
    let check = ok("pods-known", "agents know each pod with a sidecar");
    (!names.is_empty()).then(|| {
        check.warning(
            format!("no agent knows {}", listed(names.iter().map(String::as_str))),
            "a pod that has just started is known within seconds; one that attaches by itself (outrigger.example/attach: self) never is, and \
             otherwise its node has no agent",
        )
    })
}

fn versions_of(pods: &Pods, agents: &Known<Vec<Agent>>) -> Option<Check> {
    let counts = versions::count(pods.told.iter().filter_map(|pod| pod.version.as_deref()));
    let of_agents = match agents {
        Ok(agents) => Agent::versions(agents),
        Err(_) => versions::Counts::new(),
    };
    let newest = counts.keys().next_back()?;
    let check = ok("pods-version", format!("their sidecars are of version {newest}"));
    let expected = of_agents.keys().next_back().unwrap_or(newest);
    Some(match counts.len() == 1 && newest == expected {
        true => check,
        false => check.warning(
            format!("their sidecars are of {}, and agents of {expected}", versions::text(&counts)),
            "start the pods with older ones again: kubectl rollout restart; kubectl outrigger status -o json says which these are",
        ),
    })
}
