//! `endpoints`: who stands behind a service, as a pod's proxy has it: by its registry, and by what its balancer goes by. Only shows what
//! the proxy says at `/endpoints`.

use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::client::{self, ANSWER_TIMEOUT};
use super::columns::{Column, Columns, WHOLE, column, printable};
use super::error::{Error, unwritten};
use super::screen::{Output, ScreenArgs};
use super::target::TargetArgs;
use super::words::{age, failed, known, percent};
use crate::observe::{EndpointList, EndpointReport};

#[derive(Debug, Args)]
pub(super) struct Endpoints {
    /// NAMESPACE/HOSTNAME, NAMESPACE/HOSTNAME:PORT or ADDRESS:PORT, e.g. demo/web.demo.svc.cluster.local:80
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The pod whose proxy is asked, `namespace/name`, of those that a node's agent knows
    #[arg(long, value_name = "POD")]
    pod: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    screen: ScreenArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[arg(long)]
    no_headers: bool,
}

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
        let target = self.target.target()?;
        let body = client::get(&target, &self.path(), Some(ANSWER_TIMEOUT))?.whole()?;
        let unlike = |error: serde_json::Error| Error::Unlike {
            target: target.to_string(),
            what: "list of endpoints",
            reason: error.to_string(),
        };
        let list: EndpointList = serde_json::from_str(&body).map_err(unlike)?;
        let screen = self.screen.stdout();
        let Some(syntax) = self.output.syntax() else {
            let room = screen.width.filter(|_| self.output == Output::Table);
            let text = render(&list, room, !self.no_headers);
            out.write_all(text.as_bytes()).map_err(unwritten)?;
            eprintln!("{}", printable(&remark(&list)));
            return Ok(());
        };
        let list: Value = serde_json::from_str(&body).map_err(unlike)?;
        screen.document(out, syntax, "EndpointList", &list)
    }

    fn path(&self) -> String {
        let mut path = format!("/endpoints?service={}", client::escaped(&self.service));
        if let Some(pod) = &self.pod {
            path.push_str(&format!("&pod={}", client::escaped(pod)));
        }
        path
    }
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
