//! The dashboard: each panel says what it shows and in which unit, and every metric has its place.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{metrics, read};

const FILE: &str = "deploy/grafana/outrigger.json";

/// Of Grafana's units, those that are used: a word that it does not know is shown behind the number as it is.
const UNITS: [&str; 8] = ["Bps", "bytes", "cps", "ms", "none", "percentunit", "s", "short"];

/// Metrics that nobody looks at in a picture, and why.
const NOT_SHOWN: [(&str, &str); 5] = [
    ("outrigger_ca_tokens", "tokens of an authority without a cluster"),
    (
        "outrigger_pod_certificates_offered",
        "a fact about the API server, which does not change",
    ),
    (
        "outrigger_proxy_takeovers",
        "of hosts: a sidecar of a pod is never taken over",
    ),
    (
        "outrigger_registry_workload_listed",
        "where it is 0 and matters, connections are refused, which is shown",
    ),
    ("process_start_time_seconds", "restarts are the cluster's to show"),
];

/// A panel that shows something, and its queries.
struct Panel {
    value: Value,
}

impl Panel {
    fn text(&self, pointer: &str) -> &str {
        self.value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn title(&self) -> &str {
        self.text("/title")
    }

    fn queries(&self) -> Vec<String> {
        let targets = self.value["targets"].as_array().unwrap();
        targets
            .iter()
            .map(|target| target["expr"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Left, top, right and bottom on the grid.
    fn place(&self) -> [u64; 4] {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| self.value["gridPos"][side].as_u64().unwrap());
        [x, y, x + w, y + h]
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read(FILE)).unwrap()
}

/// Those of each row; what stands above the first one has no row.
fn rows(dashboard: &Value) -> Vec<Vec<Panel>> {
    let mut rows = vec![Vec::new()];
    let panel = |value: &Value| Panel { value: value.clone() };
    for value in dashboard["panels"].as_array().unwrap() {
        if value["type"] == "row" {
            let hidden = value["panels"].as_array().unwrap();
            rows.push(hidden.iter().map(panel).collect());
        } else {
            rows.last_mut().unwrap().push(panel(value));
        }
    }
    rows
}

/// Each query, with the title of its panel.
pub(super) fn queries() -> Vec<(String, String)> {
    let rows = rows(&dashboard());
    let of_panel = |panel: &Panel| {
        let title = panel.title().to_owned();
        panel
            .queries()
            .into_iter()
            .map(move |query| (title.clone(), query))
            .collect::<Vec<_>>()
    };
    rows.iter().flatten().flat_map(of_panel).collect()
}

#[test]
fn every_panel_says_in_one_sentence_what_it_shows_and_has_a_unit_and_a_place() {
    let rows = rows(&dashboard());
    assert!(rows.iter().flatten().count() > 50);
    let mut titles = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for row in &rows {
        for panel in row {
            let title = panel.title();
            assert!(
                !title.is_empty() && titles.insert(title),
                "{title:?} is no title, or a second one"
            );
            assert!(
                numbers.insert(panel.value["id"].as_u64().unwrap()),
                "{title}: its id is another's"
            );
            let words = panel.text("/description");
            assert!(
                words.ends_with('.') && !words.contains(". "),
                "{title}: {words:?} is no sentence"
            );
            let unit = panel.text("/fieldConfig/defaults/unit");
            assert!(
                UNITS.contains(&unit),
                "{title}: {unit:?} is no unit of Grafana's that is known here"
            );
            assert_eq!(panel.text("/datasource/uid"), "${datasource}", "{title}");
            let marks = panel.value["targets"].as_array().unwrap().iter();
            let marks: BTreeSet<&str> = marks.map(|target| target["refId"].as_str().unwrap()).collect();
            assert_eq!(
                marks.len(),
                panel.queries().len(),
                "{title}: two queries have one name"
            );
        }
        for (index, panel) in row.iter().enumerate() {
            let [left, top, right, bottom] = panel.place();
            assert!(right <= 24, "{}: it is wider than the grid", panel.title());
            for other in &row[index + 1..] {
                let [l, t, r, b] = other.place();
                let apart = right <= l || r <= left || bottom <= t || b <= top;
                assert!(apart, "{} lies over {}", panel.title(), other.title());
            }
        }
    }
}

/// A variable that is not defined stays in the query as it is written, and finds nothing.
#[test]
fn every_variable_of_a_query_is_defined_and_used() {
    let dashboard = dashboard();
    let defined = dashboard["templating"]["list"].as_array().unwrap().iter();
    let defined: BTreeSet<&str> = defined
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(defined, BTreeSet::from(["datasource", "namespace", "pod"]));
    let mut used = BTreeSet::from(["datasource".to_owned()]);
    for (title, query) in queries() {
        for word in query.split('$').skip(1) {
            let name: String = word
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            let is_known = defined.contains(&*name) || name == "__rate_interval";
            assert!(is_known, "{title}: ${name}");
            used.insert(name);
        }
    }
    used.remove("__rate_interval");
    assert_eq!(used, defined.into_iter().map(String::from).collect());
}

#[test]
fn every_metric_is_shown_or_has_a_reason_and_no_other_is_asked_for() {
    let manual = read("docs/observability.md");
    let first_cells = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let documented: BTreeSet<String> = first_cells.flat_map(metrics).collect();
    assert!(documented.len() > 90, "{documented:?}");
    let asked = queries()
        .iter()
        .flat_map(|(_, query)| metrics(query))
        .collect::<BTreeSet<_>>();
    // A histogram is documented by its own name.
    let shown: BTreeSet<String> = asked
        .iter()
        .map(|name| name.strip_suffix("_bucket").unwrap_or(name).to_owned())
        .collect();
    let hidden: BTreeSet<String> = NOT_SHOWN.iter().map(|(name, _)| (*name).to_owned()).collect();
    let missing: Vec<_> = documented
        .difference(&shown)
        .filter(|name| !hidden.contains(*name))
        .collect();
    assert!(missing.is_empty(), "not on the dashboard: {missing:?}");
    let unknown: Vec<_> = shown.difference(&documented).collect();
    assert!(unknown.is_empty(), "no such metric: {unknown:?}");
    let idle: Vec<_> = hidden.intersection(&shown).collect();
    assert!(idle.is_empty(), "shown after all: {idle:?}");
}
