//! `intercept status`: what agents say of their nodes: which pods are intercepted, by which programs, and which are not, and why. Attaches
//! nothing: `outrigger install` and `detach` do, on the node.

use std::collections::BTreeMap;
use std::io::Write;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::access::{AccessArgs, Session};
use super::check::ask::{self, known};
use super::check::facts::Answer;
use super::client::{self, ANSWER_TIMEOUT};
use super::columns::{Column, Columns, WHOLE, column, printable};
use super::error::{Error, unwritten};
use super::screen::{Output, ScreenArgs};
use super::unmeshed;
use crate::kubernetes::{self, LABEL_INJECT};
use crate::observe::{InterceptedPod, NodeStatus};

#[derive(Debug, Args)]
pub(super) struct Intercept {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// A row for each node; of one node a row for each of its pods
    Status(InterceptStatus),
}

#[derive(Debug, Args)]
struct InterceptStatus {
    /// Only of this node, pod by pod
    #[arg(value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    screen: ScreenArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[arg(long)]
    no_headers: bool,
}

/// What `intercept status -o json` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeStatusList {
    pub(super) nodes: Vec<NodeReport>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeReport {
    #[serde(flatten)]
    pub(super) status: NodeStatus,
    /// Pods of the node without a sidecar. `null`: not known.
    pub(super) unmeshed: Option<Vec<Unmeshed>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Unmeshed {
    pub(super) pod: String,
    pub(super) reason: String,
}

const NODES: [Column; 9] = [
    column("NODE", 0, 12),
    column("AGENT", 2, WHOLE),
    column("KERNEL", 3, 8),
    column("INTERCEPTED", 0, WHOLE),
    column("SIDECARS", 0, WHOLE),
    column("WAITING", 0, WHOLE),
    column("REFUSED", 0, WHOLE),
    column("UNMESHED", 1, WHOLE),
    column("PROBLEMS", 0, WHOLE),
];

const PODS: [Column; 5] = [
    column("POD", 0, 16),
    column("PROGRAMS", 0, WHOLE),
    column("OTHERS", 1, WHOLE),
    column("ON THE WAY", 2, WHOLE),
    column("TO THE APPLICATION", 3, WHOLE),
];

/// A map that is fuller than this soon refuses connections: a half.
const FULL: u64 = 2;

impl Intercept {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let Verb::Status(status) = &self.verb;
        status.run(out)
    }
}

impl InterceptStatus {
    fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let (list, failed) = match self.access.endpoint() {
            Some(target) => {
                let body = client::get(&target, "/node", Some(ANSWER_TIMEOUT))?.whole()?;
                let status = serde_json::from_str(&body).map_err(|error| Error::NotNode {
                    target: target.to_string(),
                    reason: error.to_string(),
                })?;
                let report = NodeReport {
                    status,
                    unmeshed: None,
                };
                (NodeStatusList { nodes: vec![report] }, Vec::new())
            }
            None => self.of_cluster()?,
        };
        let screen = self.screen.stdout();
        match self.output.syntax() {
            Some(syntax) => {
                let body = serde_json::to_value(&list).map_err(|error| unwritten(error.into()))?;
                screen.document(out, syntax, "NodeStatusList", &body)?;
            }
            None => {
                let room = screen.width.filter(|_| self.output == Output::Table);
                let text = match &self.node {
                    _ if self.output == Output::Name => list.nodes.iter().map(name).collect(),
                    None => nodes(&list, room, !self.no_headers),
                    Some(_) => list
                        .nodes
                        .iter()
                        .map(|node| pods(node, room, !self.no_headers))
                        .collect(),
                };
                out.write_all(text.as_bytes()).map_err(unwritten)?;
            }
        }
        for why in &failed {
            eprintln!("kubectl outrigger: {why}");
        }
        match failed.len() {
            0 => Ok(()),
            n => Err(Error::Partly {
                failed: n,
                all: n + list.nodes.len(),
            }),
        }
    }

    /// And why others did not answer.
    fn of_cluster(&self) -> Result<(NodeStatusList, Vec<String>), Error> {
        let session = self.access.session()?;
        let agents = match (ask::nodes(&session, self.node.as_deref()), &self.node) {
            (Err(unknown), _) => return Err(Error::Unanswerable { body: unknown.why }),
            (Ok(agents), Some(node)) if agents.is_empty() => {
                return Err(Error::NoNode { node: node.clone() });
            }
            (Ok(agents), None) if agents.is_empty() => return Err(Error::NoAgents),
            (Ok(agents), _) => agents,
        };
        let mut without = unmeshed_pods(&session);
        let (mut list, mut failed) = (NodeStatusList::default(), Vec::new());
        for agent in agents {
            match agent.answer {
                Answer::Told(status) => list.nodes.push(NodeReport {
                    status: NodeStatus {
                        node: Some(agent.node.clone()),
                        ..*status
                    },
                    unmeshed: without
                        .as_mut()
                        .map(|all| all.remove(&agent.node).unwrap_or_default()),
                }),
                Answer::Withheld(body) => return Err(Error::Rights { body }),
                Answer::None(why) => failed.push(why),
            }
        }
        match list.nodes.is_empty() {
            true => Err(Error::Unanswerable {
                body: failed.join("\n"),
            }),
            false => Ok((list, failed)),
        }
    }
}

/// By node. `None`: this person may not look at the pods of all namespaces.
fn unmeshed_pods(session: &Session) -> Option<BTreeMap<String, Vec<Unmeshed>>> {
    let client = session.client();
    let seen = known(session.ask(kubernetes::seen_pods(client, None, None))).ok()?;
    let labels = known(session.ask(kubernetes::namespace_labels(client, None))).ok()?;
    let mut by_node: BTreeMap<String, Vec<Unmeshed>> = BTreeMap::new();
    for pod in seen.iter().filter(|pod| !pod.is_meshed && pod.phase == "Running") {
        let label = labels
            .get(&pod.namespace)
            .and_then(|labels| labels.get(LABEL_INJECT));
        if let Some(node) = &pod.node {
            by_node.entry(node.clone()).or_default().push(Unmeshed {
                pod: format!("{}/{}", pod.namespace, pod.name),
                reason: unmeshed::reason(pod, Some(label.map(String::as_str))),
            });
        }
    }
    Some(by_node)
}

fn name(node: &NodeReport) -> String {
    printable(&format!("node/{}", node.status.node.as_deref().unwrap_or("-"))) + "\n"
}

fn nodes(list: &NodeStatusList, room: Option<usize>, headers: bool) -> String {
    let mut columns = Columns::new(NODES.into(), room, headers);
    for node in &list.nodes {
        let NodeReport { status, unmeshed } = node;
        let counts = status.pods;
        let problems = status
            .intercepted
            .iter()
            .map(|pod| problems(pod).len())
            .sum::<usize>();
        columns.push(vec![
            status.node.clone().unwrap_or_else(|| "-".into()),
            status.version.clone(),
            status.kernel.clone(),
            counts.intercepted.to_string(),
            counts.with_sidecar.to_string(),
            counts.waiting.to_string(),
            counts.refused.to_string(),
            unmeshed
                .as_ref()
                .map_or_else(|| "-".into(), |pods| pods.len().to_string()),
            problems.to_string(),
        ]);
    }
    columns.text() + &told(&list.nodes)
}

fn pods(node: &NodeReport, room: Option<usize>, headers: bool) -> String {
    let mut columns = Columns::new(PODS.into(), room, headers);
    for pod in &node.status.intercepted {
        let fill = |n: usize| {
            pod.maps
                .get(n)
                .map_or_else(|| "-".into(), |map| format!("{}/{}", map.entries, map.size))
        };
        let all = pod.programs + pod.missing.len() as u64;
        columns.push(vec![
            pod.pod.clone(),
            match &pod.problem {
                Some(_) => "-".into(),
                None => format!("{}/{all}", pod.programs),
            },
            pod.others.len().to_string(),
            fill(0),
            fill(1),
        ]);
    }
    let mut text = columns.text() + &told(std::slice::from_ref(node));
    let unmeshed = node.unmeshed.iter().flatten();
    for Unmeshed { pod, reason } in unmeshed {
        text.push_str(&format!("\n{}\n", printable(&format!("{pod}: no sidecar"))));
        text.push_str(&format!("  {}\n", printable(reason)));
    }
    text
}

/// What is wrong, a paragraph each.
fn told(nodes: &[NodeReport]) -> String {
    let mut text = String::new();
    for pod in nodes.iter().flat_map(|node| &node.status.intercepted) {
        for (what, more) in problems(pod) {
            text.push_str(&format!("\n{}\n", printable(&format!("{}: {what}", pod.pod))));
            text.push_str(&format!("  {}\n", printable(&more)));
        }
    }
    text
}

/// Of one pod, each with what it means.
fn problems(pod: &InterceptedPod) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    if let Some(why) = &pod.problem {
        problems.push(("the kernel does not say what is attached".to_owned(), why.clone()));
    }
    if !pod.missing.is_empty() {
        problems.push((
            format!("no program of ours at {}", pod.missing.join(", ")),
            "what it does there is not intercepted, or not as it should be; outrigger install on the node attaches it again".into(),
        ));
    }
    for other in &pod.others {
        let order = match &*other.order {
            "before" => "it runs before ours, which see what it has made of a connection",
            "after" => "it runs after ours, and sees the addresses that they redirect to",
            _ => "ours is not there",
        };
        let name = if other.name.is_empty() {
            "without a name"
        } else {
            &other.name
        };
        problems.push((
            format!(
                "a program of somebody else at {}: {name} ({})",
                other.hook, other.id
            ),
            order.into(),
        ));
    }
    for map in pod.maps.iter().filter(|map| map.entries * FULL > map.size) {
        problems.push((
            format!("{} of {} entries of {} are used", map.entries, map.size, map.map),
            "where it is full new connections are refused: many connections are on their way at once, or the application does not accept"
                .into(),
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{MapFill, OtherProgram, PodCounts};

    fn list() -> NodeStatusList {
        let map = |map: &str, entries, size| MapFill {
            map: map.into(),
            entries,
            size,
        };
        let pod = |name: &str| InterceptedPod {
            pod: name.into(),
            programs: 9,
            maps: vec![map("or_pending", 3, 8192), map("or_presented", 0, 4096)],
            ..InterceptedPod::default()
        };
        let spoilt = InterceptedPod {
            programs: 8,
            missing: vec!["connect4".into()],
            others: vec![OtherProgram {
                hook: "sock_ops".into(),
                id: 77,
                name: "cil_sockops\x1b[31m".into(),
                order: "before".into(),
            }],
            maps: vec![map("or_pending", 8000, 8192), map("or_presented", 0, 4096)],
            ..pod("shop/web-1")
        };
        NodeStatusList {
            nodes: vec![NodeReport {
                status: NodeStatus {
                    node: Some("node-1".into()),
                    version: "0.1.0".into(),
                    kernel: "6.1.0-13-amd64".into(),
                    time: "2026-01-31T12:00:00.000Z".into(),
                    pods: PodCounts {
                        intercepted: 2,
                        with_sidecar: 1,
                        waiting: 1,
                        refused: 0,
                    },
                    intercepted: vec![pod("shop/web-0"), spoilt],
                },
                unmeshed: Some(vec![Unmeshed {
                    pod: "kube-system/dns".into(),
                    reason: "it is in the network of its node (hostNetwork), where no sidecar can be".into(),
                }]),
            }],
        }
    }

    #[test]
    fn each_node_has_a_row_and_each_problem_a_paragraph() {
        let text = nodes(&list(), Some(80), true);
        let table: Vec<&str> = text.lines().take(2).collect();
        assert_eq!(
            table,
            [
                "NODE    AGENT  INTERCEPTED  SIDECARS  WAITING  REFUSED  UNMESHED  PROBLEMS",
                "node-1  0.1.0  2            1         1        0        1         3",
            ]
        );
        assert!(
            text.contains("\nshop/web-1: no program of ours at connect4\n  what it does"),
            "{text}"
        );
        assert!(text.contains("somebody else at sock_ops: cil_sockops?[31m (77)\n  it runs before"));
        assert!(text.contains("8000 of 8192 entries of or_pending are used\n"));
        let wide = nodes(&list(), Some(200), true);
        assert!(wide.contains("6.1.0-13-amd64"), "{wide}");
    }

    #[test]
    fn of_one_node_each_pod_has_a_row_and_each_without_a_sidecar_a_reason() {
        let text = pods(&list().nodes[0], Some(80), true);
        let table: Vec<&str> = text.lines().take(3).collect();
        assert_eq!(
            table,
            [
                "POD          PROGRAMS   OTHERS   ON THE WAY   TO THE APPLICATION",
                "shop/web-0   9/9        0        3/8192       0/4096",
                "shop/web-1   8/9        1        8000/8192    0/4096",
            ]
        );
        assert!(text.ends_with("\nkube-system/dns: no sidecar\n  it is in the network of its node (hostNetwork), where no sidecar can be\n"));
        let silent = InterceptedPod {
            problem: Some("EPERM".into()),
            ..InterceptedPod::default()
        };
        assert_eq!(problems(&silent).len(), 1);
    }
}
