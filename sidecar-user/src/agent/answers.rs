//! What the agent answers at its admin socket and to people: from what it remembers, and what the sidecars say that serve now. Changes
//! nothing itself; a sidecar that is to drain is asked to.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream;

use super::client::{self, Error};
use super::draining;
use super::listing::Listing;
use super::memory::{PodFlows, Pods, Question, newest};
use super::merged::{self, Merged, Watchers};
use super::nodes;
use super::register::{Installed, Refused, Register, Sidecar};
use super::relayed;
use crate::kubernetes::LABEL_INJECT;
use crate::observe::{
    Asked, FlowList, FlowReport, FlowState, PodExplanation, PodList, PodStatus, Problem, Reply, Summary,
    WhyReport,
};

#[derive(Clone)]
pub(super) struct Answers {
    register: Arc<Register>,
    watchers: Arc<Watchers>,
    /// The name of this node.
    node: Option<String>,
}

/// For what a sidecar says.
const PATIENCE: Duration = Duration::from_secs(3);
/// That are asked at the same time.
const AT_ONCE: usize = 16;
/// What has happened is told of so long ago, unless the question says otherwise.
const PAST: &str = "10m";
/// So many of what has happened, unless the question says otherwise.
const FEW: usize = 10;
/// Parameters that are the agent's own, and not for sidecars.
const OWN: [&str; 9] = [
    "pod",
    "namespace",
    "since",
    "until",
    "after",
    "watch",
    "state",
    "limit",
    "all",
];

impl Answers {
    pub(super) fn new(register: Arc<Register>, node: Option<String>) -> Self {
        Self {
            register,
            node,
            watchers: Arc::default(),
        }
    }

    pub(super) fn answer(&self, asked: Asked) -> Pin<Box<dyn Future<Output = Reply> + Send>> {
        let this = self.clone();
        Box::pin(async move {
            match asked {
                Asked::Flows(query) => this.flows(&query).await,
                Asked::Why(query) => this.why(&query).await.unwrap_or_else(Reply::Wrong),
                Asked::Pods(query) => match Question::parse(&query, SystemTime::now()) {
                    Ok(question) => document(serde_json::to_string(&this.pods(&question.pods).await)),
                    Err(reason) => Reply::Wrong(reason),
                },
                Asked::OfProxy(path, query) => relayed::answer(&this.register, path, &query).await,
                Asked::Node => document(serde_json::to_string(
                    &nodes::status(&this.register, this.node).await,
                )),
                Asked::Drain(query) => draining::drain(&this.register, &query).await,
            }
        })
    }

    async fn flows(&self, query: &str) -> Reply {
        let mut question = match Question::parse(query, SystemTime::now()) {
            Ok(question) => question,
            Err(reason) => return Reply::Wrong(reason),
        };
        // A watch hears of pods that come later, too.
        if question.flows.watch {
            return self.watch(question, query);
        }
        self.mean(&mut question);
        if question.has_cursor() {
            let mut since = self.register.memory().follow(&question);
            self.call(&mut since.flows);
            return document(serde_json::to_string(&since));
        }
        let (open, is_truncated) = match question.flows.state {
            Some(FlowState::Closed) => (Vec::new(), false),
            _ if question.has_end() => (Vec::new(), false),
            _ => self.open(&question, query).await,
        };
        let found = match question.flows.state {
            Some(FlowState::Open) => Vec::new(),
            _ => self.register.memory().found(&question),
        };
        Reply::Stream(Box::new(Listing::new(
            question,
            open,
            is_truncated,
            found,
            self.register.names.clone(),
        )))
    }

    /// Inside pods are known by their uids.
    fn mean(&self, question: &mut Question) {
        question.pods = self.register.names.meant_by(&question.pods);
    }

    fn call(&self, flows: &mut [FlowReport]) {
        for flow in flows {
            flow.pod = flow.pod.take().map(|pod| self.register.names.of(&pod));
        }
    }

    fn watch(&self, question: Question, query: &str) -> Reply {
        if question.has_times() {
            return Reply::Wrong(
                "`watch` is about what happens from now on: leave out since, until and after".into(),
            );
        }
        let mut rest = for_sidecars(query);
        match question.flows.state {
            Some(FlowState::Open) => rest.push_str("&state=open"),
            Some(FlowState::Closed) => rest.push_str("&state=closed"),
            None => {}
        }
        rest.push_str(&format!("&limit={}", question.limit()));
        let merged = Merged::new(self.register.clone(), &self.watchers, question.pods, rest);
        match merged {
            Some(merged) => Reply::Lines(Box::new(merged)),
            None => Reply::Busy(format!("{} watch already; end one first", merged::MOST)),
        }
    }

    /// The newest of those that are open now, oldest first, each with the number of its sidecar; and whether there are more.
    async fn open(&self, question: &Question, query: &str) -> (Vec<(u32, FlowReport)>, bool) {
        let limit = question.limit();
        let path = format!("/flows?{}&state=open&limit={limit}", for_sidecars(query));
        let sidecars = self.register.sidecars(&question.pods);
        let mut answers = stream::iter(sidecars.into_iter().map(|sidecar| ask(sidecar, path.clone())))
            .buffer_unordered(AT_ONCE);
        let (mut open, mut is_truncated) = (Vec::new(), false);
        while let Some((sidecar, answer)) = answers.next().await {
            let Ok(Ok(list)) = answer.map(|answer| serde_json::from_slice::<FlowList>(&answer)) else {
                continue;
            };
            is_truncated |= list.truncated;
            open.extend(list.open.into_iter().map(|mut flow| {
                flow.pod = Some(self.register.names.of(&sidecar.pod));
                (sidecar.instance, flow)
            }));
            if open.len() > limit {
                sort(&mut open);
                open.drain(..open.len() - limit);
                is_truncated = true;
            }
        }
        sort(&mut open);
        (open, is_truncated)
    }

    async fn why(&self, query: &str) -> Result<Reply, String> {
        let (path, mut past) = (format!("/why?{}", for_sidecars(query)), past(query)?);
        let pod = past.pods.only().map(|pod| self.register.names.meant(pod));
        self.mean(&mut past);
        let sidecar = pod
            .as_deref()
            .and_then(|pod| self.register.sidecars(&Pods::named(pod)).pop());
        let now: Result<WhyReport, Problem> = match (sidecar, &pod) {
            (Some(sidecar), _) => match ask(sidecar, path).await.1 {
                Ok(answer) => serde_json::from_slice(&answer).map_err(|_| silent()),
                Err(Error::Refused { status: 400, words }) => return Err(words),
                Err(_) => Err(silent()),
            },
            (None, Some(pod)) if self.register.pods().contains_key(pod) => Err(waiting()),
            (None, Some(pod)) => Err(unknown(&self.register.names.of(pod))),
            (None, None) => Err(unnamed()),
        };
        let (now, problem) = now.map_or_else(|why| (None, Some(why)), |now| (Some(now), None));
        let found = self.register.memory().found(&past);
        // Reading all that is remembered takes half a second.
        let told = tokio::task::spawn_blocking(move || newest(&found, &past).0);
        let told = told.await.map_err(|error| error.to_string())?;
        Ok(document(serde_json::to_string(&PodExplanation {
            pod: pod.map(|pod| self.register.names.of(&pod)),
            now,
            problem,
            past: told.iter().map(WhyReport::of_flow).collect(),
        })))
    }

    async fn pods(&self, asked_for: &Pods) -> PodList {
        let (installed, kept) = (self.register.pods(), self.register.memory().pods());
        let sidecars = self.register.sidecars(asked_for);
        let names: BTreeSet<String> = installed
            .keys()
            .cloned()
            .chain(kept.iter().map(|pod| pod.pod.clone()))
            .chain(sidecars.iter().map(|sidecar| sidecar.pod.to_string()))
            .filter(|pod| self.register.names.is_among(pod, asked_for))
            .collect();
        let asked = names.into_iter().map(|pod| {
            let newest = sidecars
                .iter()
                .rev()
                .find(|sidecar| *sidecar.pod == *pod)
                .cloned();
            let kept = kept.iter().find(|kept| kept.pod == pod).cloned();
            let installed = installed.get(&pod).copied();
            let pod = self.register.names.of(&pod);
            async move {
                let said = match newest {
                    None => None,
                    Some(sidecar) => {
                        let (_, answer) = ask(sidecar, "/summary".into()).await;
                        Some(
                            answer
                                .ok()
                                .and_then(|answer| serde_json::from_slice(&answer).ok()),
                        )
                    }
                };
                status(pod, installed, kept, said)
            }
        });
        let mut pods: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        let refused_here = self.register.refused().into_iter();
        pods.extend(refused_here.filter(|pod| asked_for.have(&pod.name)).map(refused));
        PodList { pods }
    }
}

/// `said`: what its sidecar says, where there is one.
fn status(
    pod: String,
    installed: Option<Installed>,
    kept: Option<PodFlows>,
    said: Option<Option<Summary>>,
) -> PodStatus {
    let refused = installed.map_or(0, |pod| pod.refused);
    let mut problems = Vec::new();
    let state = match (&said, installed) {
        (Some(Some(summary)), _) => {
            problems.extend(summary.missing.as_deref().map(unready));
            summary.state.clone().into()
        }
        (Some(None), _) => {
            problems.push(silent());
            "silent".into()
        }
        (None, Some(_)) => {
            problems.push(waiting());
            "waiting".into()
        }
        (None, None) => "gone".into(),
    };
    if refused > 0 {
        problems.push(Problem {
            what: format!("asked for its session and are not its sidecar: {refused}"),
            remedy: "the agent's log names each process and its cgroup".into(),
        });
    }
    let said = said.flatten();
    let waits = installed.map(|pod| humantime::format_rfc3339_seconds(pod.since).to_string());
    let kept = kept.unwrap_or_default();
    PodStatus {
        pod,
        sidecar: state,
        since: said.as_ref().map(|summary| summary.started.clone()).or(waits),
        open_flows: said.as_ref().map(|summary| summary.open_flows),
        version: said.as_ref().map(|summary| summary.version.clone()),
        identity: said.and_then(|summary| summary.identity),
        closed_flows: kept.flows as u64,
        failed_flows: kept.failed as u64,
        refused_askers: refused,
        problems,
    }
}

/// What has happened: the flows to there that did not end in order, of the last ten minutes. Nothing where the question names
/// no destination.
fn past(query: &str) -> Result<Question, String> {
    let mut of_past = String::new();
    let (mut has_since, mut limit, mut all) = (false, FEW, false);
    let mut has_destination = false;
    for (name, value) in pairs(query) {
        match name {
            "since" => has_since = true,
            "destination" => has_destination = true,
            "all" => all = value != "false",
            _ => {}
        }
        if ["since", "until", "destination"].contains(&name) {
            of_past.push_str(&format!("{name}={value}&"));
        }
    }
    if !has_since {
        of_past.push_str(&format!("since={PAST}&"));
    }
    if !all {
        of_past.push_str("failed=true&");
    }
    if !has_destination {
        limit = 0;
    }
    let mut past = Question::parse(&format!("{of_past}limit={limit}"), SystemTime::now())?;
    // As they are read where it is decided what the caller may see, however they are written.
    past.pods = Pods::of_query(query)?;
    Ok(past)
}

/// A question as a sidecar understands it.
fn for_sidecars(query: &str) -> String {
    let rest = query
        .split('&')
        .filter(|pair| !OWN.contains(&pair.split('=').next().unwrap_or_default()));
    rest.filter(|pair| !pair.is_empty()).collect::<Vec<_>>().join("&")
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

async fn ask(sidecar: Sidecar, path: String) -> (Sidecar, Result<bytes::Bytes, Error>) {
    let answer = client::ask(&sidecar.socket, &path, PATIENCE).await;
    (sidecar, answer)
}

fn sort(open: &mut [(u32, FlowReport)]) {
    open.sort_by(|(_, a), (_, b)| (&a.opened, a.id).cmp(&(&b.opened, b.id)));
}

fn document(body: serde_json::Result<String>) -> Reply {
    match body {
        Ok(text) => Reply::Json(text),
        Err(error) => Reply::Wrong(format!("cannot write JSON: {error}")),
    }
}

fn silent() -> Problem {
    Problem {
        what: "its sidecar does not answer".into(),
        remedy: "look into its log, or restart it; connections do not wait for this".into(),
    }
}

fn unready(missing: &str) -> Problem {
    Problem {
        what: format!("its sidecar is not ready: {missing}"),
        remedy: "its log has each attempt; a pod that has just started waits until its sidecar is".into(),
    }
}

/// Of a pod that can have no sidecar here.
fn refused(pod: Refused) -> PodStatus {
    PodStatus {
        pod: pod.name,
        sidecar: "refused".into(),
        since: Some(humantime::format_rfc3339_seconds(pod.since).to_string()),
        open_flows: None,
        version: None,
        identity: None,
        closed_flows: 0,
        failed_flows: 0,
        refused_askers: 0,
        problems: vec![Problem {
            what: format!("it runs without its sidecar's protection: {}", pod.why),
            remedy: format!(
                "the Event on the pod says the same; the label {LABEL_INJECT}: disabled keeps it out of the mesh"
            ),
        }],
    }
}

fn waiting() -> Problem {
    Problem {
        what: "no sidecar holds this pod".into(),
        remedy: "start its sidecar, or look into its log; until then its connections are refused".into(),
    }
}

fn unnamed() -> Problem {
    Problem {
        what: "what would happen depends on the pod, and the question names none".into(),
        remedy: "name one by --pod, such as kubectl outrigger status lists (pod= of GET /pods)".into(),
    }
}

fn unknown(pod: &str) -> Problem {
    Problem {
        what: format!("no pod {pod} is on this node"),
        remedy: "GET /pods (kubectl outrigger status) lists those that are".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_is_asked_without_what_is_the_agent_s() {
        assert_eq!(
            for_sidecars("pod=a%2Fb&failed&since=10m&watch=true&service=web&limit=5"),
            "failed&service=web"
        );
        assert_eq!(for_sidecars(""), "");
    }

    #[test]
    fn the_past_is_that_of_failures_of_ten_minutes_unless_more_is_asked_for() {
        let asks = |query: &str| format!("{:?}", past(query).unwrap());
        let usual = asks("destination=10.0.0.1:80&pod=a%2Fb&source=10.0.0.9");
        assert!(
            usual.contains("failed: Some(true)")
                && usual.contains("limit: Some(10)")
                && usual.contains("\"a/b\""),
            "{usual}"
        );
        assert!(asks("destination=10.0.0.1:80&all=true").contains("failed: None"));
        assert!(asks("source=10.0.0.1&port=80").contains("limit: Some(0)"));
        let pods = past("destination=10.0.0.1:80&n%61mespace=shop").unwrap().pods;
        assert!(pods.have("shop/a") && !pods.have("bank/a"));
        assert!(past("destination=web:80").is_err());
        assert!(past("destination=10.0.0.1:80&since=soon").is_err());
    }

    #[test]
    fn each_pod_has_the_state_that_is_known_and_a_remedy_for_what_is_wrong() {
        let installed = |refused| {
            Some(Installed {
                since: SystemTime::UNIX_EPOCH,
                refused,
            })
        };
        let summary = Summary {
            version: "0.1.0".into(),
            state: "serving".into(),
            identity: None,
            started: "1970-01-01T00:00:07.000Z".into(),
            open_flows: 2,
            missing: None,
        };
        let unready = Summary {
            missing: Some("certificate: nobody answers".into()),
            ..summary.clone()
        };
        let told = |installed, said| {
            let status = status("a".into(), installed, None, said);
            let what: Vec<String> = status
                .problems
                .iter()
                .map(|problem| problem.what.clone())
                .collect();
            (status.sidecar.to_string(), status.since, what.join("; "))
        };
        let said = |state: &str, since: Option<&str>, what: &str| {
            (state.to_owned(), since.map(String::from), what.to_owned())
        };
        let (zero, seven) = (Some("1970-01-01T00:00:00Z"), Some("1970-01-01T00:00:07.000Z"));
        assert_eq!(
            told(installed(0), Some(Some(summary))),
            said("serving", seven, "")
        );
        assert_eq!(
            told(installed(0), Some(Some(unready))),
            said(
                "serving",
                seven,
                "its sidecar is not ready: certificate: nobody answers"
            )
        );
        assert_eq!(
            told(installed(0), Some(None)),
            said("silent", zero, "its sidecar does not answer")
        );
        assert_eq!(
            told(installed(2), None),
            said(
                "waiting",
                zero,
                "no sidecar holds this pod; asked for its session and are not its sidecar: 2"
            )
        );
        assert_eq!(told(None, None), said("gone", None, ""));
    }
}
