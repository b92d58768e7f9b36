//! A Prometheus that scrapes sidecars, agents and control of a mesh with traffic finds what the dashboard and the rules ask for.

use std::collections::BTreeSet;

use harness::cluster::mesh::SYSTEM;
use harness::cluster::{Namespace, Prometheus};
use harness::wait::{self, SOON};
use serde_json::{Value, json};

use super::{dashboard, metrics, read, rules, targets};
use crate::common::{cluster, named_server, pod, service};
use crate::mesh::{client, mesh, meshed};

/// Metrics that a mesh without trouble does not show, and why.
const ONLY_THEN: [(&str, &str); 5] = [
    (
        "outrigger_tcp_bottlenecks_total",
        "of connections that are held up, and none is",
    ),
    (
        "outrigger_webhook_reviews_total",
        "of the webhook, and here the API server injects",
    ),
    (
        "outrigger_trust_bundle_errors_total",
        "with podCertificates, which are off by default",
    ),
    ("outrigger_pod_certificate_requests_total", "with podCertificates"),
    (
        "outrigger_pod_certificate_requests_waiting",
        "with podCertificates",
    ),
];

/// A minute of anything that is asked for by its rate.
const WINDOW: &str = "1m";

/// Runs in the client: one good connection after the other, and as many to where nobody listens.
const TRAFFIC: &str = "for _ in $(seq 100); do curl -sS -m 5 -o /dev/null http://web/; curl -s -m 5 http://silent:81/; done; true";

/// Connections that a server in strict mode does not take.
const PLAINTEXT: &str = "for _ in $(seq 40); do nc.openbsd -z -w 1 \"$0\" 80 & done; wait; true";

fn scraped(namespace: &Namespace) -> Prometheus {
    let pods = [namespace.name(), SYSTEM].map(|name| {
        let pods = cluster().kubectl().get(&["--namespace", name, "pods"]).unwrap();
        pods["items"].as_array().unwrap().clone()
    });
    let targets = targets::of_pods(pods.iter().flatten());
    // What is told of at once, so that nobody waits for it here; that an alert waits is promtool's to play.
    let rules: String = read(rules::FILE)
        .lines()
        .filter(|line| !line.trim_start().starts_with("for: "))
        .map(|line| format!("{line}\n"))
        .collect();
    let configuration = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: [rules.yaml]\n{}",
        targets::jobs(&read("deploy/prometheus/scrape.yaml"), "targets.json")
    );
    let files = [("rules.yaml", &*rules), ("targets.json", &*targets)];
    Prometheus::start(cluster(), &configuration, &files).unwrap()
}

/// A mesh in which some connections fail: where nobody listens, and in plaintext where only a peer is taken.
fn troubled(namespace: &Namespace) {
    let mut web = pod(
        "web",
        json!({ "nodeName": "node-2", "containers": [named_server()] }),
    );
    web["metadata"]["annotations"] = json!({ "outrigger.example/mode": "strict" });
    let mut silent = service("silent", 81);
    silent["spec"]["selector"] = json!({ "app": "web" });
    namespace
        .apply(&[web, service("web", 80), silent, client("client", "node-1")])
        .unwrap();
    for pod in ["pod/web", "pod/client"] {
        namespace.wait(pod, "condition=Ready").unwrap();
    }
}

#[test]
fn the_dashboard_and_the_rules_find_what_they_ask_for_and_trouble_raises_its_alerts() {
    let _mesh = mesh();
    let namespace = meshed("scraped");
    let outside = Namespace::create(cluster().kubectl(), "not-scraped").unwrap();
    outside.apply(&[client("stranger", "node-1")]).unwrap();
    troubled(&namespace);
    outside.wait("pod/stranger", "condition=Ready").unwrap();
    let prometheus = scraped(&namespace);
    everything_is_scraped(&prometheus);

    let web = namespace.get(&["pod", "web"]).unwrap();
    let web = web["status"]["podIP"].as_str().unwrap();
    namespace
        .exec("client", &["sh", "-c", TRAFFIC])
        .unwrap()
        .ok()
        .unwrap();
    outside
        .exec("stranger", &["sh", "-c", PLAINTEXT, web])
        .unwrap()
        .ok()
        .unwrap();
    every_query_finds_something(&prometheus);
    every_rule_is_computed(&prometheus);
    let service = format!("{name}/silent.{name}.svc.cluster.local", name = namespace.name());
    is_raised(
        &prometheus,
        "OutriggerFailuresHigh",
        &[("namespace", namespace.name()), ("service", &service)],
    );
    let pod = [("namespace", namespace.name()), ("pod", "web")];
    is_raised(&prometheus, "OutriggerPlaintextInStrictRefused", &pod);
}

/// Two sidecars, an agent on each of two nodes, two replicas of control.
fn everything_is_scraped(prometheus: &Prometheus) {
    let count = |job: &str| {
        let up = prometheus.query(&format!(
            "count(up{{job=\"{job}\", node=~\"node-.\", pod!=\"\"}} == 1)"
        ));
        let up = up.unwrap();
        let count = up.first().and_then(|sample| sample["value"][1].as_str());
        count.unwrap_or("0").to_owned()
    };
    for job in ["outrigger-sidecars", "outrigger-agent", "outrigger-control"] {
        wait::until(&format!("both of {job} are scraped"), SOON, || count(job) == "2").unwrap_or_else(
            |error| {
                panic!(
                    "{error}: {}\n{}",
                    prometheus.get("targets").unwrap(),
                    prometheus.log()
                )
            },
        );
    }
}

/// Each query of the dashboard gives data, unless it asks for what only trouble shows.
fn every_query_finds_something(prometheus: &Prometheus) {
    let sometimes: BTreeSet<&str> = ONLY_THEN.iter().map(|(name, _)| *name).collect();
    let mut left: Vec<(String, String)> = dashboard::queries();
    left.retain(|(_, query)| !metrics(query).iter().any(|name| sometimes.contains(&**name)));
    assert!(left.len() > 80, "{left:?}");
    let found = wait::until("every query finds something", SOON, || {
        left.retain(|(_, query)| {
            let query = query
                .replace("$namespace", ".+")
                .replace("$pod", ".+")
                .replace("$__rate_interval", WINDOW);
            prometheus.query(&query).unwrap().is_empty()
        });
        left.is_empty()
    });
    found.unwrap_or_else(|error| panic!("{error}: {left:#?}"));
}

fn every_rule_is_computed(prometheus: &Prometheus) {
    let mut wrong = Vec::new();
    let computed = wait::until("every rule is computed", SOON, || {
        wrong = what_rules_lack(prometheus);
        wrong.is_empty()
    });
    computed.unwrap_or_else(|error| panic!("{error}: {wrong:#?}"));
}

/// A rule is computed for the first time a moment after the server starts, and one that uses another's record a moment later.
fn what_rules_lack(prometheus: &Prometheus) -> Vec<String> {
    let groups = prometheus.get("rules").unwrap();
    let groups = groups["groups"].as_array().unwrap().iter();
    let rules: Vec<&Value> = groups
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    assert_eq!(rules.len(), read(rules::FILE).matches("\n        expr: ").count());
    let names = prometheus.get("label/__name__/values").unwrap();
    let names: BTreeSet<&str> = names
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let sometimes: BTreeSet<&str> = ONLY_THEN.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for rule in rules {
        let name = rule["name"].as_str().unwrap();
        if rule["health"] != "ok" {
            wrong.push(format!("{name} is {}: {}", rule["health"], rule["lastError"]));
        }
        if rule["type"] == "recording" && !names.contains(name) {
            wrong.push(format!("{name} records nothing"));
        }
        for metric in metrics(rule["query"].as_str().unwrap()) {
            if !names.contains(&*metric) && !sometimes.contains(&*metric) {
                wrong.push(format!("{name} asks for {metric}, which nobody shows"));
            }
        }
    }
    wrong
}

fn is_raised(prometheus: &Prometheus, name: &str, labels: &[(&str, &str)]) {
    let alert = wait::until_some(&format!("{name} is raised"), SOON, || {
        let alerts = prometheus.get("alerts")?;
        let mut alerts = alerts["alerts"].as_array().into_iter().flatten();
        let is_it = |alert: &&Value| {
            let has = |(label, value): &(&str, &str)| alert["labels"][label] == *value;
            alert["state"] == "firing" && alert["labels"]["alertname"] == name && labels.iter().all(has)
        };
        Ok(alerts.find(is_it).cloned())
    });
    let alert = alert.unwrap_or_else(|error| panic!("{error}: {}", prometheus.get("alerts").unwrap()));
    for part in ["summary", "description"] {
        let words = alert["annotations"][part].as_str().unwrap();
        let is_filled = !words.contains("<no value>") && !words.contains("{{") && !words.contains("<error");
        assert!(is_filled, "{name}: {words}");
    }
    let summary = alert["annotations"]["summary"].as_str().unwrap();
    assert!(summary.contains(labels[1].1), "{summary}");
}
