//! The endpoints that are asked, and of which pods each is asked. Asks all of them at once, and goes on where one does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::BufRead;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use super::dial::AgentPod;
use super::select::Wanted;
use super::session::Session;
use crate::plugin::client::{self, ANSWER_TIMEOUT, Target};
use crate::plugin::error::Error;

#[derive(Debug)]
pub(in crate::plugin) struct Sources {
    pub(in crate::plugin) all: Vec<Source>,
    /// What a person should know of who is not asked.
    pub(in crate::plugin) notes: Vec<String>,
    /// Pods without a sidecar among those that are asked about, `namespace/name`: their peers know them by address alone.
    pub(in crate::plugin) outside: BTreeMap<IpAddr, String>,
}

#[derive(Clone, Debug)]
pub(in crate::plugin) struct Source {
    pub(in crate::plugin) target: Target,
    /// Parameters of each question.
    pub(in crate::plugin) scope: Vec<(&'static str, String)>,
}

/// What was answered, and by whom not.
#[derive(Debug)]
pub(in crate::plugin) struct Answers {
    pub(in crate::plugin) bodies: Vec<String>,
    pub(in crate::plugin) failed: Vec<Error>,
}

/// That wait to be shown. More wait at their sources.
const LINES: usize = 256;
/// Asked at the same time.
const AT_ONCE: usize = 16;
/// Of the parameters that name pods. A request's head may have 16 KiB.
const MOST_NAMED: usize = 8 * 1024;

impl Source {
    /// A path with the source's own parameters behind it.
    pub(in crate::plugin) fn path(&self, path: &str) -> String {
        let mut path = path.to_owned();
        for (name, value) in &self.scope {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&format!("{name}={}", client::escaped(value)));
        }
        path
    }

    /// Of the one pod that it is asked about.
    pub(in crate::plugin) fn namespace(&self) -> Option<String> {
        let (_, pod) = self.scope.iter().find(|(name, _)| *name == "pod")?;
        Some(pod.split_once('/')?.0.to_owned())
    }

    pub(in crate::plugin) fn get(&self, path: &str) -> Result<String, Error> {
        client::get(&self.target, &self.path(path), Some(ANSWER_TIMEOUT))?.whole()
    }
}

impl Sources {
    pub(super) fn one(source: Source) -> Self {
        Self {
            all: vec![source],
            notes: Vec::new(),
            outside: BTreeMap::new(),
        }
    }

    pub(super) fn of_cluster(session: &Session, wanted: &Wanted<'_>) -> Result<Self, Error> {
        let agents: BTreeMap<String, AgentPod> = AgentPod::all(session)?
            .into_iter()
            .map(|agent| (agent.node.clone(), agent))
            .collect();
        if agents.is_empty() {
            return Err(Error::NoAgents);
        }
        if let Wanted::Namespace(None) = wanted {
            let all = agents.into_values().map(|agent| Source {
                target: Target::Agent(agent),
                scope: Vec::new(),
            });
            return Ok(Self {
                all: all.collect(),
                notes: Vec::new(),
                outside: BTreeMap::new(),
            });
        }
        let mut by_node: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let (mut namespaces, mut unmeshed, mut outside) = (BTreeSet::new(), 0, BTreeMap::new());
        for pod in wanted.find(session)? {
            match (pod.is_meshed, pod.node) {
                (true, Some(node)) => {
                    by_node
                        .entry(node)
                        .or_default()
                        .insert(format!("{}/{}", pod.namespace, pod.name));
                    namespaces.insert(pod.namespace);
                }
                _ => {
                    unmeshed += 1;
                    // The address of its node is not its own.
                    if let Some(address) = pod.address.filter(|_| !pod.is_meshed && !pod.is_host_network) {
                        outside.insert(address, format!("{}/{}", pod.namespace, pod.name));
                    }
                }
            }
        }
        if by_node.is_empty() {
            return Err(Error::NoneMeshed { pods: unmeshed });
        }
        let missing: Vec<String> = by_node
            .keys()
            .filter(|node| !agents.contains_key(*node))
            .cloned()
            .collect();
        if missing.len() == by_node.len() {
            return Err(Error::NoAgent {
                node: missing.join(", "),
            });
        }
        let mut notes: Vec<String> = missing
            .into_iter()
            .map(|node| Error::NoAgent { node }.to_string())
            .collect();
        if unmeshed > 0 && !matches!(wanted, Wanted::Namespace(_)) {
            notes.push(format!(
                "{unmeshed} of these pods have no sidecar, and nothing is known of their connections"
            ));
        }
        let whole = match wanted {
            Wanted::Namespace(namespace) => *namespace,
            _ => None,
        };
        let all = by_node.into_iter().filter_map(|(node, pods)| {
            let target = Target::Agent(agents.get(&node)?.clone());
            let scope = scope(whole, pods, &namespaces);
            Some(Source { target, scope })
        });
        Ok(Self {
            all: all.collect(),
            notes,
            outside,
        })
    }

    /// Asks all of them the same.
    pub(in crate::plugin) fn get(&self, path: &str) -> Result<Answers, Error> {
        let mut answers = Answers {
            bodies: Vec::new(),
            failed: Vec::new(),
        };
        for some in self.all.chunks(AT_ONCE) {
            let answered: Vec<Result<String, Error>> = match some {
                [one] => vec![one.get(path)],
                some => thread::scope(|scope| {
                    let asked: Vec<_> = some
                        .iter()
                        .map(|source| scope.spawn(|| source.get(path)))
                        .collect();
                    asked
                        .into_iter()
                        .map(|asked| asked.join().expect("it does not panic"))
                        .collect()
                }),
            };
            for answer in answered {
                match answer {
                    Ok(body) => answers.bodies.push(body),
                    Err(error) => answers.failed.push(error),
                }
            }
        }
        if answers.bodies.is_empty()
            && let Some(first) = answers.failed.drain(..).next()
        {
            return Err(first);
        }
        Ok(answers)
    }

    /// The lines that they say from now on, as they come; an error is the last of its source. Ends with the last of them.
    pub(in crate::plugin) fn watch(&self, path: &str) -> Result<Receiver<Result<String, Error>>, Error> {
        let (tell, lines) = sync_channel(LINES);
        for source in &self.all {
            let answer = client::get(&source.target, &source.path(path), None)?;
            let (tell, target) = (tell.clone(), source.target.to_string());
            // It ends with the stream, or with the process.
            thread::spawn(move || {
                for line in answer.into_body().lines() {
                    let line = line.map_err(|source| Error::Unreachable {
                        target: target.clone(),
                        source,
                    });
                    let is_last = line.is_err();
                    if tell.send(line).is_err() || is_last {
                        return;
                    }
                }
            });
        }
        Ok(lines)
    }

    /// Says what a person should know, on standard error.
    pub(in crate::plugin) fn tell(&self) {
        for note in &self.notes {
            eprintln!("kubectl outrigger: {note}");
        }
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.all.as_slice() {
            [one] => one.target.fmt(f),
            all => write!(f, "one of {} agents", all.len()),
        }
    }
}

impl Answers {
    /// What is shown is not all: said on standard error, and by the exit status.
    pub(in crate::plugin) fn end(self) -> Result<(), Error> {
        let (failed, all) = (self.failed.len(), self.failed.len() + self.bodies.len());
        if failed == 0 {
            return Ok(());
        }
        for error in &self.failed {
            eprintln!("kubectl outrigger: {error}");
        }
        Err(Error::Partly { failed, all })
    }
}

/// Names of pods, or of the namespaces that they are in where they are too many to name.
fn scope(
    whole: Option<&str>,
    pods: BTreeSet<String>,
    namespaces: &BTreeSet<String>,
) -> Vec<(&'static str, String)> {
    let named: usize = pods.iter().map(|pod| pod.len() + "&pod=".len()).sum();
    match whole {
        Some(namespace) => vec![("namespace", namespace.to_owned())],
        None if named > MOST_NAMED => namespaces
            .iter()
            .map(|name| ("namespace", name.clone()))
            .collect(),
        None => pods.into_iter().map(|pod| ("pod", pod)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_pods_or_their_namespaces() {
        let pods = |n: usize| (0..n).map(|n| format!("shop/web-{n}")).collect::<BTreeSet<_>>();
        let namespaces = BTreeSet::from(["shop".to_owned()]);
        let source = |whole, n| Source {
            target: Target::Tcp("x".into()),
            scope: scope(whole, pods(n), &namespaces),
        };
        assert_eq!(source(Some("shop"), 2).path("/flows"), "/flows?namespace=shop");
        assert_eq!(
            source(None, 2).path("/flows?limit=5"),
            "/flows?limit=5&pod=shop/web-0&pod=shop/web-1"
        );
        assert_eq!(source(None, 2_000).path("/flows"), "/flows?namespace=shop");
    }
}
