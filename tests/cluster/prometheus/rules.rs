//! The rules as files: promtool plays a time in which each alert fires, and one in which none does.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use harness::chart;
pub(super) use harness::chart::RULES as FILE;
use harness::process::Output;
use harness::wait::SOON;

use super::{metrics, path, read};

const TEST: &str = "deploy/prometheus/rules.test.yaml";
const RUNBOOKS: &str = "docs/alerts.md";

/// Each alert with the lines of its rule.
pub(super) fn alerts() -> BTreeMap<String, String> {
    let rules = read(FILE);
    let rules = rules.split("      - alert: ").skip(1);
    let named = rules.map(|rule| {
        let (name, text) = rule.split_once('\n').unwrap();
        // Up to the next group.
        let text = text.split("\n  - name:").next().unwrap();
        (name.to_owned(), text.to_owned())
    });
    named.collect()
}

fn promtool(args: &[&str], file: &str) -> Output {
    let mut command = Command::new("promtool");
    // The test names the rules beside it.
    command.args(args).arg(path(file));
    Output::of(command, SOON * 3).unwrap()
}

#[test]
fn promtool_takes_the_rules() {
    let said = promtool(&["check", "rules"], FILE).ok().unwrap();
    let recorded = read(FILE).matches("      - record: ").count();
    let all = alerts().len() + recorded;
    assert!(said.contains(&format!("SUCCESS: {all} rules found")), "{said}");
}

/// The first part of the test plays half a day of a mesh that is well, in which nothing may fire at any time.
#[test]
fn each_alert_fires_in_its_own_trouble_and_none_does_where_all_is_well() {
    promtool(&["test", "rules"], TEST).ok().unwrap();

    let test = read(TEST);
    let (_, parts) = test.split_once("\ntests:\n").unwrap();
    let mut parts = parts.split("  - name: ").skip(1);
    let well = parts.next().unwrap();
    assert!(well.contains(
        "count_over_time(ALERTS{alertstate=\"firing\"}[12h])', eval_time: 11h59m, exp_samples: []"
    ));
    let mut fired = BTreeSet::new();
    for part in parts {
        let name = part.lines().next().unwrap();
        let sample = format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\"");
        assert!(part.contains(&sample), "the part {name} expects another alert");
        fired.insert(name.to_owned());
    }
    let alerts = alerts();
    assert_eq!(fired, alerts.keys().cloned().collect());
    // Who is silent for want of series is not silent because all is well.
    let played = metrics(well);
    for (name, rule) in &alerts {
        let asked = metrics(rule.split("labels:").next().unwrap());
        let missing: Vec<_> = asked.difference(&played).collect();
        assert!(
            missing.is_empty(),
            "{name}: a mesh that is well has no {missing:?} in {TEST}"
        );
    }
}

#[test]
fn every_alert_says_how_bad_it_is_what_it_means_and_where_its_remedy_stands() {
    let runbooks = read(RUNBOOKS);
    for (name, rule) in alerts() {
        let severity = ["critical", "warning"].map(|word| format!("severity: {word}\n"));
        assert!(
            severity.iter().any(|line| rule.contains(line)),
            "{name} has no severity"
        );
        for part in ["summary: ", "description: >-\n"] {
            assert!(rule.contains(part), "{name} has no {part}");
        }
        let runbook = format!("runbook: {RUNBOOKS}#{}", name.to_lowercase());
        assert!(rule.contains(&runbook), "{name}: no {runbook}");
        assert!(
            runbooks.contains(&format!("\n### {name}\n")),
            "{RUNBOOKS} has no section {name}"
        );
    }
    let sections = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect::<BTreeSet<_>>();
    let alerts = alerts();
    let names = alerts.keys().map(String::as_str).collect();
    assert_eq!(sections, names, "{RUNBOOKS} has sections of its own");
}

#[test]
fn the_object_of_the_operator_holds_the_same_rules() {
    let object = chart::rules_object(&read(FILE)).unwrap();
    assert!(read(chart::RULES_OBJECT) == object, "run: cargo xtask manifests");
    let alerts = object.matches("        - alert: Outrigger").count();
    assert_eq!(alerts, self::alerts().len());
}
