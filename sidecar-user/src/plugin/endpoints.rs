//! `endpoints`: who stands behind a service, as a pod's proxy has it: by its registry, and by what its balancer goes by; and in a cluster,
//! beside that, as the API server has it. Only shows what the proxy says at `/endpoints`.

mod compared;
mod service;

use std::io::Write;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::access::{AccessArgs, SelectorArgs, Source};
use super::client;
use super::columns::{Column, Columns, WHOLE, column, printable};
use super::error::{Error, unwritten};
use super::of_itself;
use super::screen::{Output, Screen, ScreenArgs};
use super::words::{age, failed, known, percent};
use crate::observe::{EndpointList, EndpointReport, PodList};

#[cfg(test)]
pub(super) use compared::EndpointComparison;

#[derive(Debug, Args)]
pub(super) struct Endpoints {
    /// svc/NAME, NAME or NAME.NAMESPACE, with :PORT for one port; of one proxy, NAMESPACE/HOSTNAME or ADDRESS
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The pod whose proxy is asked [default: one of the namespace that has dialled the service]
    #[arg(long, value_name = "POD")]
    pod: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    screen: ScreenArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[arg(long)]
    no_headers: bool,
}

/// Pods that are asked whether they have dialled the service, where none is named.
const ASKED: usize = 16;

const COLUMNS: [Column; 9] = [
    column("ADDRESS", 0, 16),
    column("STATE", 0, WHOLE),
    column("CHANCE", 1, WHOLE),
    column("OPEN", 2, WHOLE),
    column("WORKLOAD", 1, 12),
    column("TRANSPORT", 3, WHOLE),
    column("PORT", 5, WHOLE),
    column("NODE", 4, 8),
    column("LOCALITY", 6, 8),
];

impl Endpoints {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        if self.access.endpoint().is_none() {
            return self.compare(out);
        }
        let source = of_itself::source(&self.access, self.pod.as_deref())?;
        let list = ask(&source, &self.service)?;
        let screen = self.screen.stdout();
        let Some(syntax) = self.output.syntax() else {
            let text = render(&list, self.room(&screen), !self.no_headers);
            out.write_all(text.as_bytes()).map_err(unwritten)?;
            eprintln!("{}", printable(&remark(&list)));
            return Ok(());
        };
        screen.document(out, syntax, "EndpointList", &value(&list)?)
    }

    /// A proxy's view beside the API's.
    fn compare(&self, out: &mut impl Write) -> Result<(), Error> {
        let asked = service::parse(&self.service).map_err(|reason| Error::Usage { reason })?;
        let session = self.access.session()?;
        let here = self.access.namespace(&session).unwrap_or(session.namespace());
        let service = asked.find(&session, here)?;
        let list = match &self.pod {
            Some(pod) => ask(&of_itself::source(&self.access, Some(pod))?, &service.question)?,
            None => self.of_any(&service.question)?,
        };
        let compared = compared::compare(&asked.name(here), &list, &service.endpoints);
        let screen = self.screen.stdout();
        let Some(syntax) = self.output.syntax() else {
            let text = compared::render(&compared, self.room(&screen), !self.no_headers);
            out.write_all(text.as_bytes()).map_err(unwritten)?;
            eprintln!("{}", printable(&compared::remark(&compared, &remark(&list))));
            return Ok(());
        };
        screen.document(out, syntax, "EndpointComparison", &value(&compared)?)
    }

    /// By the first pod's proxy that knows the service, else by any.
    fn of_any(&self, question: &str) -> Result<EndpointList, Error> {
        let sources = self.access.sources(&SelectorArgs::default())?;
        sources.tell();
        let mut last = Err(Error::NoneMeshed { pods: 0 });
        let mut asked = 0;
        for source in &sources.all {
            let pods = source.get("/pods")?;
            let pods: PodList = serde_json::from_str(&pods).map_err(|error| Error::NotPods {
                target: source.target.to_string(),
                reason: error.to_string(),
            })?;
            let serving = pods.pods.into_iter().filter(|pod| pod.sidecar == "serving");
            for pod in serving.take(ASKED - asked) {
                let source = Source {
                    target: source.target.clone(),
                    scope: vec![("pod", pod.pod)],
                };
                asked += 1;
                last = ask(&source, question);
                if last.as_ref().is_ok_and(|list| list.knowledge == "known") {
                    return last;
                }
            }
        }
        last
    }

    fn room(&self, screen: &Screen) -> Option<usize> {
        screen.width.filter(|_| self.output == Output::Table)
    }
}

fn ask(source: &Source, service: &str) -> Result<EndpointList, Error> {
    let path = format!("/endpoints?service={}", client::escaped(service));
    let body = of_itself::ask(source, &path)?;
    serde_json::from_str(&body).map_err(|error| Error::Unlike {
        target: source.target.to_string(),
        what: "list of endpoints",
        reason: error.to_string(),
    })
}

fn value(document: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(document).map_err(|error| unwritten(error.into()))
}

/// A row for each endpoint; below them what has failed, in full.
pub(super) fn render(list: &EndpointList, room: Option<usize>, headers: bool) -> String {
    if list.endpoints.is_empty() {
        return String::new();
    }
    let mut columns = Columns::new(COLUMNS.into(), room, headers);
    for endpoint in &list.endpoints {
        columns.push(row(endpoint));
    }
    let mut text = columns.text();
    let failing = list
        .endpoints
        .iter()
        .filter_map(|one| Some((&one.address, one.last_failure.as_ref()?)));
    for (n, (address, failure)) in failing.enumerate() {
        if n == 0 {
            text.push('\n');
        }
        text.push_str(&printable(&format!("{address} {}", failed(failure))));
        text.push('\n');
    }
    text
}

/// What is known, of when, and what is not.
pub(super) fn remark(list: &EndpointList) -> String {
    let registry = &list.registry;
    let mut remark = list.summary.clone();
    remark.push_str(&match registry.generation {
        0 => "; the proxy's registry is empty".to_owned(),
        generation => format!(
            "; as of change {generation} of the proxy's registry, {} ago",
            age(registry.age_seconds)
        ),
    });
    if let Some(error) = &registry.error {
        remark.push_str(&format!(", and a newer one cannot be had: {error}"));
    }
    if list.truncated {
        remark.push_str("; there are more than are shown");
    }
    remark
}

fn row(endpoint: &EndpointReport) -> Vec<String> {
    let number = |n: Option<u32>| n.map_or_else(|| known(None), |n| n.to_string());
    vec![
        endpoint.address.clone(),
        known(endpoint.state.as_deref()).replace('_', " "),
        endpoint.chance.map_or_else(|| known(None), percent),
        number(endpoint.open_connections),
        known(endpoint.workload.as_deref()),
        endpoint.transport.to_string(),
        number(endpoint.service_port.map(u32::from)),
        known(endpoint.node.as_deref()),
        known(endpoint.locality.as_deref()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    fn list() -> EndpointList {
        serde_json::from_value(contract::example("EndpointList")).unwrap()
    }

    #[test]
    fn each_endpoint_has_a_row_and_what_has_failed_is_told_in_full() {
        let text = render(&list(), Some(80), true);
        assert_eq!(
            text,
            "\
ADDRESS         STATE      CHANCE  OPEN  WORKLOAD    TRANSPORT  PORT  NODE
10.0.0.9:8080   ready      50%     2     demo/web-0  hbone      80    node-1
10.0.0.10:8080  failing    50%     2     demo/web-1  hbone      80    node-2
10.0.0.11:8080  not ready  0%      0     demo/web-2  hbone      80    node-2

10.0.0.10:8080 failed 3 times in a row, at 2026-01-31T11:59:58.000Z: connection_refused by upstream: 10.0.0.10:15008 answered CONNECT with 503
"
        );
        let wide = render(&list(), None, true);
        assert!(wide.contains("LOCALITY") && wide.contains("r1/z1"), "{wide}");
        assert!(render(&list(), Some(80), false).starts_with("10.0.0.9"));
    }

    #[test]
    fn what_was_not_asked_for_yet_is_said_and_no_empty_table() {
        let mut list = list();
        list.endpoints.clear();
        list.summary = "not asked for yet: nothing here has dialled it".into();
        list.registry.error = Some("the agent of this node has not answered".into());
        assert_eq!(render(&list, Some(80), true), "");
        let remark = remark(&list);
        assert!(
            remark.starts_with("not asked for yet")
                && remark.contains("change 7")
                && remark.contains("has not answered"),
            "{remark}"
        );
    }
}
