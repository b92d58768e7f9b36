//! `docs/output.md` against what the plugin reads and prints: each example has every field of its kind, and no other.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::check::report::CheckReport;
use super::edges::EdgeList;
use super::endpoints::EndpointComparison;
use super::intercept::NodeStatusList;
use super::top::TopList;
use super::version::VersionReport;
use crate::kubernetes::API_VERSION;
use crate::observe::{
    EndpointList, FlowList, IdentityReport, PodExplanation, PodList, PolicyReport, WatchEvent, WhyReport,
};

const PAGE: &str = include_str!("../../../docs/output.md");

/// The example of a kind, without what every kind has.
pub(super) fn example(kind: &str) -> Value {
    let (_, section) = PAGE.split_once(&format!("\n### {kind}\n")).unwrap();
    let (_, rest) = section.split_once("```json\n").unwrap();
    let mut value: Value = serde_json::from_str(rest.split("```").next().unwrap()).unwrap();
    let fields = value.as_object_mut().unwrap();
    assert_eq!(fields.remove("apiVersion").unwrap(), API_VERSION, "{kind}");
    assert_eq!(fields.remove("kind").unwrap(), kind);
    value
}

fn holds<T: DeserializeOwned + Serialize>(kind: &str) {
    let written = example(kind);
    let read: T = serde_json::from_value(written.clone()).unwrap_or_else(|error| panic!("{kind}: {error}"));
    assert_eq!(serde_json::to_value(&read).unwrap(), written, "{kind}");
}

#[test]
fn every_example_has_the_fields_of_its_kind_and_no_other() {
    holds::<FlowList>("FlowList");
    holds::<WatchEvent>("FlowEvent");
    holds::<WhyReport>("Explanation");
    holds::<EdgeList>("EdgeList");
    holds::<TopList>("TopList");
    holds::<PodList>("PodList");
    holds::<PodExplanation>("PodExplanation");
    holds::<IdentityReport>("Identity");
    holds::<EndpointList>("EndpointList");
    holds::<EndpointComparison>("EndpointComparison");
    holds::<PolicyReport>("PolicyReport");
    holds::<CheckReport>("CheckReport");
    holds::<VersionReport>("VersionReport");
    holds::<NodeStatusList>("NodeStatusList");
    let list = example("ExplanationList");
    let past: Vec<WhyReport> = serde_json::from_value(list["explanations"].clone()).unwrap();
    assert_eq!(serde_json::to_value(past).unwrap(), list["explanations"]);
}

/// The words of the example are those that the example of a flow is explained by.
#[test]
fn the_flow_of_the_page_is_explained_as_the_page_says() {
    let flows: FlowList = serde_json::from_value(example("FlowList")).unwrap();
    let told = serde_json::to_value(WhyReport::of_flow(&flows.closed[0])).unwrap();
    assert_eq!(told, example("ExplanationList")["explanations"][0]);
}

#[test]
fn the_table_of_kinds_names_each_of_them() {
    let kinds = PAGE
        .split("\n### ")
        .skip(1)
        .map(|section| section.lines().next().unwrap());
    for kind in kinds {
        assert!(PAGE.contains(&format!("| `{kind}` |")), "{kind}");
    }
}
