//! Is there an agent on every node, does it answer, and of which version is it?

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::super::facts::{Agent, Answer, Known};
use super::super::report::{Category, Check, category, counted, listed, ok};
use crate::kubernetes::{SYSTEM_NAMESPACE, SeenNode};
use crate::plugin::versions;

/// Certificates are good from some minutes before they are signed.
const SKEW: Duration = Duration::from_secs(30);

pub(super) fn judge(nodes: &Known<Vec<SeenNode>>, agents: &Known<Vec<Agent>>) -> Category {
    let agents = match agents {
        Ok(agents) => agents,
        Err(unknown) => {
            return category("agents", vec![ok("agents", "the agents").unknown(unknown)]);
        }
    };
    let mut checks = vec![everywhere(nodes, agents), ready(agents), answering(agents)];
    checks.extend(agreeing(agents));
    checks.extend(same(agents));
    category("agents", checks)
}

fn everywhere(nodes: &Known<Vec<SeenNode>>, agents: &[Agent]) -> Check {
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(unknown) => return ok("agents-everywhere", "an agent is on every node").unknown(unknown),
    };
    let linux = nodes.iter().filter(|node| node.os == "linux");
    let without: Vec<&SeenNode> = linux
        .clone()
        .filter(|node| agents.iter().all(|agent| agent.node != node.name))
        .collect();
    let check = ok(
        "agents-everywhere",
        format!("an agent is on {}", counted(linux.count(), "node")),
    );
    let names = listed(without.iter().map(|node| &*node.name));
    let remedy = format!(
        "kubectl --namespace {SYSTEM_NAMESPACE} describe daemonset outrigger-agent: look for a nodeSelector, an affinity, or taints that the agent does not tolerate \
         (agent.nodeSelector, agent.affinity, agent.tolerations of the chart)"
    );
    match without.is_empty() {
        true => check,
        false if without.iter().any(|node| node.is_ready) => check.failed(
            format!(
                "none is on {names}: meshed pods do not start there, and nobody remembers their connections"
            ),
            remedy,
        ),
        false => check.warning(
            format!(
                "none is on {names}, which {} not ready",
                if without.len() == 1 { "is" } else { "are" }
            ),
            "kubectl describe node says why the node is not",
        ),
    }
}

fn ready(agents: &[Agent]) -> Check {
    let check = ok(
        "agents-ready",
        format!("{} ready", counted(agents.len(), "agent")),
    );
    let unready: Vec<&Agent> = agents.iter().filter(|agent| !agent.is_ready).collect();
    match unready.first() {
        None => check,
        Some(first) => check.failed(
            format!(
                "not ready: that of {}",
                listed(unready.iter().map(|agent| &*agent.node))
            ),
            format!("kubectl --namespace {SYSTEM_NAMESPACE} logs {}", first.pod),
        ),
    }
}

/// By a question to each over the API server.
fn answering(agents: &[Agent]) -> Check {
    let check = ok("agents-answer", "each has proved who it is, and answers");
    let silent: Vec<(&str, &str)> = agents
        .iter()
        .filter_map(|agent| match &agent.answer {
            Answer::None(why) => Some((&*agent.node, &**why)),
            _ => None,
        })
        .collect();
    if let Some((_, why)) = silent.first() {
        return check.failed(
            format!("not on {}: {why}", listed(silent.iter().map(|(node, _)| *node))),
            "the agent's log, and that of control, which signs its certificate",
        );
    }
    let withheld = agents.iter().find_map(|agent| match &agent.answer {
        Answer::Withheld(why) => Some(why),
        _ => None,
    });
    match withheld {
        Some(why) => check.warning(
            why.clone(),
            "it is told to whoever has the right to get nodes.outrigger.example, by agents of this version",
        ),
        None => check,
    }
}

fn agreeing(agents: &[Agent]) -> Option<Check> {
    let mut apart = BTreeMap::new();
    let mut is_any = false;
    for agent in agents {
        let Some(time) = told_time(agent) else { continue };
        is_any = true;
        let by = time
            .duration_since(agent.asked)
            .unwrap_or_else(|error| error.duration());
        if by > SKEW {
            apart.insert(&*agent.node, by);
        }
    }
    let check = ok(
        "agents-clock",
        "the clocks of their nodes and of this machine agree",
    );
    is_any.then(|| match apart.iter().max_by_key(|(_, by)| **by) {
        None => check,
        Some((_, most)) => check.warning(
            format!(
                "not on {}: up to {} s",
                listed(apart.keys().copied()),
                most.as_secs()
            ),
            "set them by NTP: certificates are good for a time that all have to agree on",
        ),
    })
}

fn told_time(agent: &Agent) -> Option<SystemTime> {
    match &agent.answer {
        Answer::Told(status) => humantime::parse_rfc3339(&status.time).ok(),
        _ => None,
    }
}

fn same(agents: &[Agent]) -> Option<Check> {
    let told = agents.iter().filter_map(|agent| match &agent.answer {
        Answer::Told(status) => Some(&*status.version),
        _ => None,
    });
    let counts = versions::count(told);
    let newest = counts.keys().next_back()?.clone();
    let check = ok(
        "agents-version",
        format!("they are of version {newest}, as this program is"),
    );
    let own = env!("CARGO_PKG_VERSION");
    Some(match (counts.len(), &*newest == own) {
        (1, true) => check,
        (1, false) => check.warning(
            format!("they are of version {newest}, and this program of {own}"),
            "use kubectl outrigger of the version that is installed, or upgrade the installation",
        ),
        _ => check.warning(
            format!("they differ: {}", versions::text(&counts)),
            "an upgrade may be on its way: kubectl --namespace outrigger-system rollout status daemonset outrigger-agent",
        ),
    })
}
