//! Asks agents, all at once: about their nodes, and about their pods.

use std::collections::BTreeMap;
use std::thread;
use std::time::SystemTime;

use super::facts::{Agent, Answer, Known, Unknown};
use crate::observe::{NodeStatus, PodList, PodStatus};
use crate::plugin::access::{AgentPod, Session};
use crate::plugin::client::{self, ANSWER_TIMEOUT, Target};
use crate::plugin::error::Error;

/// Asked at the same time.
const AT_ONCE: usize = 16;

/// What all agents say.
#[derive(Clone, Debug, Default)]
pub(in crate::plugin) struct Said {
    pub(in crate::plugin) agents: Vec<Agent>,
    pub(in crate::plugin) pods: Vec<PodStatus>,
    /// Nodes whose agents did not say which pods they have, and why.
    pub(in crate::plugin) untold: BTreeMap<String, Unknown>,
}

pub(in crate::plugin) fn known<T>(asked: Result<T, Error>) -> Known<T> {
    asked.map_err(|error| Unknown {
        is_forbidden: matches!(error, Error::NoRight { .. } | Error::Rights { .. }),
        why: match error {
            // Of the installation, and not of what a verb takes.
            Error::NoRight { source } => crate::error_chain(&source),
            error => error.to_string(),
        },
    })
}

/// `namespace`: of the pods; all where it is `None`.
pub(in crate::plugin) fn agents(session: &Session, namespace: Option<&str>) -> Known<Said> {
    let all = sorted(session)?;
    let mut said = Said::default();
    for (agent, pods) in at_once(&all, |agent| (node(agent), pods(agent, namespace))) {
        match pods {
            Ok(pods) => said.pods.extend(pods),
            Err(unknown) => drop(said.untold.insert(agent.node.clone(), unknown)),
        }
        said.agents.push(agent);
    }
    said.pods.sort_by(|a, b| a.pod.cmp(&b.pod));
    Ok(said)
}

/// About their nodes alone, or about the one that is named.
pub(in crate::plugin) fn nodes(session: &Session, only: Option<&str>) -> Known<Vec<Agent>> {
    let mut all = sorted(session)?;
    all.retain(|agent| only.is_none_or(|only| agent.node == only));
    Ok(at_once(&all, node))
}

fn sorted(session: &Session) -> Known<Vec<AgentPod>> {
    let mut all = known(AgentPod::all(session))?;
    all.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(all)
}

fn at_once<T: Send>(all: &[AgentPod], ask: impl Fn(&AgentPod) -> T + Sync) -> Vec<T> {
    let mut answers = Vec::with_capacity(all.len());
    for some in all.chunks(AT_ONCE) {
        answers.extend(thread::scope(|scope| {
            let asked: Vec<_> = some.iter().map(|agent| scope.spawn(|| ask(agent))).collect();
            let joined = asked
                .into_iter()
                .map(|asked| asked.join().expect("it does not panic"));
            joined.collect::<Vec<_>>()
        }));
    }
    answers
}

fn node(agent: &AgentPod) -> Agent {
    let asked = SystemTime::now();
    let answer = match get::<NodeStatus>(agent, "/node") {
        Ok(status) => Answer::Told(Box::new(status)),
        Err(Error::Rights { body }) => Answer::Withheld(body),
        Err(Error::Refused { status: 404, .. }) => Answer::Withheld(format!(
            "the agent of {} is of a version that does not say how its node is",
            agent.node
        )),
        Err(error) => Answer::None(error.to_string()),
    };
    let pod = agent.pod();
    Agent {
        node: agent.node.clone(),
        pod: pod.name.clone(),
        is_ready: pod.is_ready,
        answer,
        asked,
    }
}

fn pods(agent: &AgentPod, namespace: Option<&str>) -> Known<Vec<PodStatus>> {
    let path = match namespace {
        Some(namespace) => format!("/pods?namespace={}", client::escaped(namespace)),
        None => "/pods".to_owned(),
    };
    known(get::<PodList>(agent, &path)).map(|list| list.pods)
}

fn get<T: serde::de::DeserializeOwned>(agent: &AgentPod, path: &str) -> Result<T, Error> {
    let target = Target::Agent(agent.clone());
    let body = client::get(&target, path, Some(ANSWER_TIMEOUT))?.whole()?;
    serde_json::from_str(&body).map_err(|error| Error::NotNode {
        target: target.to_string(),
        reason: error.to_string(),
    })
}
