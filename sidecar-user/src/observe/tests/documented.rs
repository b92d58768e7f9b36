//! `docs/observability.md` against what the endpoints answer, both ways: what stands there exists, with this type and
//! these labels, and what exists stands there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::admission::{Admission, Limits as DoorLimits};

const PAGE: &str = include_str!("../../../../docs/observability.md");

/// The rows of the first table after this line, each as its cells.
fn table(after: &str) -> Vec<Vec<&'static str>> {
    let start = PAGE.find(after).unwrap_or_else(|| panic!("no `{after}`"));
    let mut lines = PAGE[start..]
        .lines()
        .skip(1)
        .skip_while(|line| !line.starts_with('|'));
    let head = lines.by_ref().take(2).count();
    assert_eq!(head, 2, "no table after `{after}`");
    let rows = lines.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect()
}

/// What stands in backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(String::from).collect()
}

fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    items.into_iter().collect()
}

/// Everything that a proxy can show.
fn full() -> Observer {
    let observer = Observer::new();
    let flow = open(&observer, "web");
    flow.update(read);
    flow.close(EOF);
    observer.kernel_counters(|| vec![("redirected", 7)]);
    observer.readiness().condition("identity", "none yet");
    let limits = DoorLimits {
        places: 1,
        per_source: 1,
        first_byte: PATIENCE,
        first_byte_under_pressure: PATIENCE,
    };
    observer.door("status", Admission::new(limits));
    let ways = &observer.meters().interception_proven;
    ways.get_or_create(&[("direction", "inbound"), ("family", "ipv4")])
        .set(1);
    observer
}

/// A role reads it somewhere else, and its own test compares it with the page.
fn is_a_figure(name: &str) -> bool {
    let prefixes = [
        "outrigger_buffer_memory_",
        "outrigger_log_lines_",
        "outrigger_panics_",
        "outrigger_proxy_state",
        "outrigger_proxy_takeovers",
    ];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

#[test]
fn every_metric_stands_there_with_its_type_and_labels_and_no_other() {
    let common = quoted(
        &table("Connection labels, on every metric marked C:")
            .iter()
            .map(|row| row[0])
            .collect::<Vec<_>>()
            .join(","),
    );
    let mut documented = Metrics::new();
    for row in table("from then on it is counted as opened.") {
        let mut labels = set(quoted(row[2]));
        if row[2].starts_with('C') {
            labels.extend(common.iter().cloned());
        }
        // Figures of the role, which compares them itself.
        let names = quoted(row[0]).into_iter().filter(|name| !is_a_figure(name));
        for name in names {
            documented.insert(name, (row[1].to_owned(), labels.clone()));
        }
    }

    let text = full()
        .renderer()
        .render(Format::Prometheus, Instant::now())
        .unwrap();
    let mut scraped = Metrics::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap();
            scraped.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let series = line.rsplit_once(' ').unwrap().0;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|s| name.strip_suffix(s));
            let name = if scraped.contains_key(name) {
                name
            } else {
                base.unwrap()
            };
            let names = labels
                .split("=\"")
                .filter_map(|part| part.rsplit(['"', ',']).next());
            let names = names
                .filter(|name| !["", "}", "le"].contains(name))
                .map(String::from);
            scraped.get_mut(name).unwrap().1.extend(names);
        }
    }
    assert_eq!(documented, scraped);
}

#[test]
fn every_field_of_a_flow_stands_there_with_its_type_and_no_other() {
    let mut flow = flow(Direction::Outbound);
    connected(&mut flow, "web");
    read(&mut flow);
    flow.closed = Some((SystemTime::now(), EOF));
    let mut report = FlowReport::new(&flow, SystemTime::now());
    report.pod = Some("demo/web".into());
    let report = serde_json::to_value(report).unwrap();
    let fields = report.as_object().unwrap();
    let mut documented = BTreeSet::new();
    for row in table("A flow; what is not known is `null`, never absent:") {
        for field in quoted(row[0]) {
            let value = fields.get(&field).unwrap_or_else(|| panic!("no field `{field}`"));
            let has_type = match row[1] {
                "number" => value.is_number(),
                "object" => value.is_object(),
                "list" => value.is_array(),
                _ => value.is_string(),
            };
            assert!(has_type, "`{field}` is no {}: {value}", row[1]);
            if let Value::Object(parts) = value {
                let parts = set(parts.keys().cloned());
                assert_eq!(set(quoted(row[2])), parts, "`{field}`");
            }
            documented.insert(field);
        }
    }
    assert_eq!(documented, set(fields.keys().cloned()));
}

#[test]
fn every_field_of_a_decision_stands_there_and_no_other() {
    let decision = DecisionReport {
        after_seconds: 0.0,
        step: "dial".into(),
        result: Some("failed".into()),
        endpoint: Some(String::new()),
        transport: Some("plain".into()),
        policy: Some(String::new()),
        rule: Some(0),
        by: Some("us".into()),
        cause: Some("io".into()),
        detail: Some(String::new()),
    };
    let fields = serde_json::to_value(decision).unwrap();
    let rows = table("A decision; what does not apply is absent:");
    let documented = set(rows.iter().flat_map(|row| quoted(row[0])));
    assert_eq!(documented, set(fields.as_object().unwrap().keys().cloned()));
}

#[test]
fn every_figure_of_a_connection_and_every_bottleneck_stands_there_and_no_other() {
    let mut flow = flow(Direction::Outbound);
    connected(&mut flow, "web");
    read(&mut flow);
    let report = serde_json::to_value(FlowReport::new(&flow, SystemTime::now())).unwrap();
    let fields = report["tcp"]["upstream"].as_object().unwrap();
    let rows = table("Each of `client` and `upstream`:");
    let documented = set(rows.iter().flat_map(|row| quoted(row[0])));
    assert_eq!(documented, set(fields.keys().cloned()));

    let rows = table("TCP needs as much to get going.");
    let documented = set(rows.iter().flat_map(|row| quoted(row[0])));
    assert_eq!(documented, set(Bottleneck::ALL.map(|b| b.name().to_owned())));
}

#[test]
fn every_field_of_an_explanation_stands_there_and_no_other() {
    let report = WhyReport {
        direction: "outbound".into(),
        protocol: "tcp".into(),
        source: None,
        destination: String::new(),
        verdict: "mesh".into(),
        summary: String::new(),
        connect: None,
        rule: None,
        endpoints: Vec::new(),
        reasons: Vec::new(),
        kernel_event: None,
    };
    let fields = serde_json::to_value(report).unwrap();
    let rows = table("### `GET /why`");
    let documented = set(rows.iter().flat_map(|row| quoted(row[0])));
    assert_eq!(documented, set(fields.as_object().unwrap().keys().cloned()));
}

#[test]
fn every_field_of_an_agent_s_explanation_and_of_a_summary_stands_there_and_no_other() {
    let told = PodExplanation {
        pod: None,
        now: None,
        problem: None,
        past: Vec::new(),
    };
    let fields = serde_json::to_value(told).unwrap();
    let rows = table("### `GET /why` of an agent");
    let documented = set(rows.iter().map(|row| quoted(row[0]).remove(0)));
    assert_eq!(documented, set(fields.as_object().unwrap().keys().cloned()));

    let summary = Summary {
        version: String::new(),
        state: String::new(),
        identity: None,
        started: String::new(),
        open_flows: 0,
        missing: None,
    };
    let rows = table("## Admin endpoint");
    let row = rows.iter().find(|row| row[0] == "`GET /summary`").unwrap();
    for field in serde_json::to_value(summary).unwrap().as_object().unwrap().keys() {
        assert!(row[1].contains(&format!("`{field}`")), "{field}");
    }
}

#[test]
fn every_parameter_of_policies_stands_there() {
    let error = policies::PoliciesQuestion::parse("x=y").unwrap_err();
    let (_, parameters) = error.rsplit_once("there are ").unwrap();
    let rows = table("### `GET /policies`");
    assert_eq!(
        set(rows.iter().map(|row| quoted(row[0]).remove(0))),
        set(parameters.split(", ").map(String::from))
    );
}

#[test]
fn every_parameter_event_and_cause_stands_there() {
    let error = filter::Query::parse("x=y").unwrap_err();
    let parameters = error
        .rsplit_once("there are ")
        .unwrap()
        .1
        .split(", ")
        .map(String::from);
    let rows = table("### `GET /flows`");
    assert_eq!(set(rows.iter().flat_map(|row| quoted(row[0]))), set(parameters));

    let flow = FlowReport::new(&flow(Direction::Outbound), SystemTime::now());
    for event in [
        WatchEvent::Opened { flow: flow.clone() },
        WatchEvent::Closed { flow },
        WatchEvent::Skipped { strangers: 1 },
        WatchEvent::Dropped {
            reason: String::new(),
        },
    ] {
        let json = serde_json::to_value(&event).unwrap();
        let written = format!("\"event\":\"{}\"", json["event"].as_str().unwrap());
        assert!(PAGE.contains(&written), "{written}");
    }

    let list = PAGE.split("`cause` is one of ").nth(1).unwrap();
    let causes = set(quoted(list.split(".\n").next().unwrap()));
    assert_eq!(
        causes,
        set(all_causes().into_iter().map(|c| labels::cause(c).to_owned()))
    );
    assert_eq!(causes, set(Cause::ALL.map(|c| labels::cause(c).to_owned())));
}

/// The match has an arm for each, or this does not compile.
fn all_causes() -> Vec<Cause> {
    macro_rules! all {
        ($($name:ident),*) => {{
            let _names_every_cause = |cause: Cause| match cause { $(Cause::$name => {})* };
            vec![$(Cause::$name),*]
        }};
    }
    all![
        Eof,
        Reset,
        ConnectionRefused,
        Unreachable,
        TimedOut,
        TlsFailed,
        WrongIdentity,
        NoIdentity,
        Denied,
        NoEndpoint,
        NoDiscovery,
        UnknownDestination,
        NoOriginalDestination,
        Loop,
        LimitReached,
        IdleTimeout,
        ProtocolError,
        Shutdown,
        Internal,
        Io
    ]
}
