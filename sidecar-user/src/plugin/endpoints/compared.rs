//! A proxy's endpoints of a service beside the API server's: each address in one row, and `STALE` where the two disagree.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kubernetes::SeenEndpoint;
use crate::observe::{DialFailureReport, EndpointList, RegistryReport};
use crate::plugin::columns::{Column, Columns, WHOLE, column, printable};
use crate::plugin::words::{failed, known, percent};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::plugin) struct EndpointComparison {
    /// `namespace/name`.
    service: String,
    /// Whose proxy it is.
    pod: Option<String>,
    knowledge: Cow<'static, str>,
    registry: RegistryReport,
    endpoints: Vec<ComparedEndpoint>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ComparedEndpoint {
    address: String,
    service_port: Option<u16>,
    workload: Option<String>,
    node: Option<String>,
    /// As in `EndpointList`; `null` where the proxy does not have it.
    proxy: Option<Cow<'static, str>>,
    /// `ready` or `not_ready`; `null` where the API server does not have it.
    api: Option<Cow<'static, str>>,
    stale: bool,
    chance: Option<f64>,
    open_connections: Option<u32>,
    last_failure: Option<DialFailureReport>,
}

const COLUMNS: [Column; 9] = [
    column("ADDRESS", 0, 16),
    column("PROXY", 0, WHOLE),
    column("API", 0, WHOLE),
    column("", 0, WHOLE),
    column("CHANCE", 2, WHOLE),
    column("OPEN", 3, WHOLE),
    column("WORKLOAD", 1, 12),
    column("PORT", 5, WHOLE),
    column("NODE", 4, 8),
];

pub(super) fn compare(
    service: &str,
    list: &EndpointList,
    seen: &[(Option<u16>, SeenEndpoint)],
) -> EndpointComparison {
    let mut rows: BTreeMap<(Option<u16>, String), ComparedEndpoint> = BTreeMap::new();
    // An endpoint that does not serve the port is no address of it.
    for one in list
        .endpoints
        .iter()
        .filter(|one| one.state.as_deref() != Some("no_port"))
    {
        rows.insert(
            (one.service_port, one.address.clone()),
            ComparedEndpoint {
                address: one.address.clone(),
                service_port: one.service_port,
                workload: one.workload.clone(),
                node: one.node.clone(),
                proxy: Some(one.state.clone().unwrap_or("ready".into())),
                api: None,
                stale: false,
                chance: one.chance,
                open_connections: one.open_connections,
                last_failure: one.last_failure.clone(),
            },
        );
    }
    for (port, one) in seen {
        let address = one.address.to_string();
        let row = rows
            .entry((*port, address.clone()))
            .or_insert_with(|| ComparedEndpoint {
                address,
                service_port: *port,
                workload: one.pod.clone(),
                node: one.node.clone(),
                proxy: None,
                api: None,
                stale: false,
                chance: None,
                open_connections: None,
                last_failure: None,
            });
        row.api = Some(if one.is_ready { "ready" } else { "not_ready" }.into());
    }
    let is_known = list.knowledge == "known" && !list.truncated;
    for row in rows.values_mut() {
        row.stale = is_known && is_stale(row.proxy.as_deref(), row.api.as_deref());
    }
    EndpointComparison {
        service: service.to_owned(),
        pod: list.pod.clone(),
        knowledge: list.knowledge.clone(),
        registry: list.registry.clone(),
        endpoints: rows.into_values().collect(),
    }
}

/// Whether one of the two would send connections there and the other one would not. A proxy need not have what is not ready.
fn is_stale(proxy: Option<&str>, api: Option<&str>) -> bool {
    let by_proxy = proxy.is_some_and(|state| state != "not_ready");
    let by_api = api == Some("ready");
    by_proxy != by_api || (proxy.is_some() && api.is_none())
}

/// A row for each address; below them what has failed, in full.
pub(super) fn render(compared: &EndpointComparison, room: Option<usize>, headers: bool) -> String {
    if compared.endpoints.is_empty() {
        return String::new();
    }
    let mut columns = Columns::new(COLUMNS.into(), room, headers);
    for endpoint in &compared.endpoints {
        columns.push(row(endpoint, &compared.knowledge));
    }
    let mut text = columns.text();
    let failing = compared.endpoints.iter();
    let failing = failing.filter_map(|one| Some((&one.address, one.last_failure.as_ref()?)));
    for (n, (address, failure)) in failing.enumerate() {
        if n == 0 {
            text.push('\n');
        }
        text.push_str(&(printable(&format!("{address} {}", failed(failure))) + "\n"));
    }
    text
}

/// Whose view it is, and what to do where it is none, or an old one.
pub(super) fn remark(compared: &EndpointComparison, of_list: &str) -> String {
    let pod = compared.pod.as_deref().unwrap_or("the proxy");
    let mut remark = format!("{pod}: {of_list}");
    if compared.knowledge == "not_asked" {
        remark.push_str("; --pod POD asks another pod");
    }
    let stale = compared.endpoints.iter().filter(|one| one.stale).count();
    if stale > 0 {
        remark.push_str(&format!(
            "; STALE: {stale}, where a proxy and the API server disagree, as they do for a second after a change: where it lasts, see that \
             control runs (kubectl outrigger check)"
        ));
    }
    remark
}

fn row(endpoint: &ComparedEndpoint, knowledge: &str) -> Vec<String> {
    let number = |n: Option<u32>| n.map_or_else(|| known(None), |n| n.to_string());
    let state = |state: &Option<Cow<'static, str>>| known(state.as_deref()).replace('_', " ");
    vec![
        endpoint.address.clone(),
        match (&endpoint.proxy, knowledge) {
            (None, "not_asked") => "not asked".to_owned(),
            (proxy, _) => state(proxy),
        },
        state(&endpoint.api),
        if endpoint.stale { "STALE" } else { "" }.to_owned(),
        endpoint.chance.map_or_else(|| known(None), percent),
        number(endpoint.open_connections),
        known(endpoint.workload.as_deref()),
        number(endpoint.service_port.map(u32::from)),
        known(endpoint.node.as_deref()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::super::contract;
    use super::*;

    fn list() -> EndpointList {
        serde_json::from_value(contract::example("EndpointList")).unwrap()
    }

    fn seen(address: &str, is_ready: bool) -> (Option<u16>, SeenEndpoint) {
        let endpoint = SeenEndpoint {
            address: address.parse().unwrap(),
            port: String::new(),
            is_ready,
            pod: Some("demo/web-3".into()),
            node: Some("node-1".into()),
        };
        (Some(80), endpoint)
    }

    #[test]
    fn what_the_two_disagree_about_is_stale() {
        for (proxy, api, stale) in [
            (Some("ready"), Some("ready"), false),
            (Some("failing"), Some("ready"), false),
            (Some("ready"), None, true),
            (Some("not_ready"), None, true),
            (None, Some("ready"), true),
            (None, Some("not_ready"), false),
            (Some("not_ready"), Some("ready"), true),
            (Some("standby"), Some("not_ready"), true),
            (Some("not_ready"), Some("not_ready"), false),
        ] {
            assert_eq!(is_stale(proxy, api), stale, "{proxy:?} {api:?}");
        }
    }

    #[test]
    fn each_address_has_one_row_and_stale_ones_are_marked() {
        let seen = [
            seen("10.0.0.9:8080", true),
            seen("10.0.0.11:8080", false),
            seen("10.0.0.12:8080", true),
        ];
        let compared = compare("demo/web", &list(), &seen);
        let text = render(&compared, Some(80), true);
        assert_eq!(
            text,
            "\
ADDRESS         PROXY      API               CHANCE  OPEN  WORKLOAD    NODE
10.0.0.10:8080  failing    -          STALE  50%     2     demo/web-1  node-2
10.0.0.11:8080  not ready  not ready         0%      0     demo/web-2  node-2
10.0.0.12:8080  -          ready      STALE  -       -     demo/web-3  node-1
10.0.0.9:8080   ready      ready             50%     2     demo/web-0  node-1

10.0.0.10:8080 failed 3 times in a row, at 2026-01-31T11:59:58.000Z: connection_refused by upstream: 10.0.0.10:15008 answered CONNECT with 503
"
        );
        assert!(
            remark(&compared, "known").contains("STALE: 2"),
            "{}",
            remark(&compared, "known")
        );
    }

    #[test]
    fn what_a_proxy_was_never_asked_for_is_not_stale() {
        let mut list = list();
        list.endpoints.clear();
        list.knowledge = "not_asked".into();
        let compared = compare("demo/web", &list, &[seen("10.0.0.9:8080", true)]);
        let text = render(&compared, Some(80), true);
        assert!(
            text.contains("not asked  ready") && !text.contains("STALE"),
            "{text}"
        );
        assert!(remark(&compared, "not asked for yet").contains("--pod POD"));
    }
}
