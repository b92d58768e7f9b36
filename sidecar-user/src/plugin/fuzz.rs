//! What has to hold of what the plugin prints, whatever an endpoint answers: a row is a line, and names drive no terminal.

use std::time::UNIX_EPOCH;

use super::columns::printable;
use super::table::{Shape, Table};
use super::why::render;
use super::{endpoints, identity, policy};
use crate::observe::{
    EndpointList, FlowList, FlowReport, IdentityReport, PolicyReport, WatchEvent, WhyReport,
};

/// The same text as each of the answers.
pub(crate) fn answer(text: &str) -> Result<String, String> {
    if let Ok(list) = serde_json::from_str::<FlowList>(text) {
        return Ok(rows(&list.open, false) + &rows(&list.closed, true));
    }
    match serde_json::from_str::<WatchEvent>(text) {
        Ok(WatchEvent::Opened { flow } | WatchEvent::Closed { flow }) => return Ok(rows(&[flow], true)),
        Ok(WatchEvent::Skipped { .. } | WatchEvent::Dropped { .. }) => return Ok(String::new()),
        Err(_) => {}
    }
    if let Some(told) = of_itself(text) {
        return Ok(told);
    }
    let report: WhyReport = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let text = render(&report);
    let lines =
        1 + report.reasons.len() + report.endpoints.len() + usize::from(report.kernel_event.is_some());
    assert_eq!(text.lines().count(), lines, "{text}");
    Ok(text)
}

/// What a proxy says of itself.
fn of_itself(text: &str) -> Option<String> {
    const NARROW: Option<usize> = Some(80);
    if let Ok(report) = serde_json::from_str::<IdentityReport>(text) {
        let narrow = identity::render(&report, NARROW, UNIX_EPOCH);
        let rows = report.chain.len() + report.roots.len();
        let table = if rows > 0 { rows + 2 } else { 0 };
        let fields = [&report.pod, &report.obtained, &report.next_renewal];
        let fields = 4 + fields.iter().filter(|field| field.is_some()).count();
        assert_eq!(narrow.lines().count(), fields + table, "{narrow}");
        return Some(identity::render(&report, None, UNIX_EPOCH));
    }
    if let Ok(list) = serde_json::from_str::<EndpointList>(text) {
        let failing = list.endpoints.iter().filter(|one| one.last_failure.is_some());
        let failing = match failing.count() {
            0 => 0,
            some => some + 1,
        };
        let narrow = endpoints::render(&list, NARROW, false);
        assert_eq!(narrow.lines().count(), list.endpoints.len() + failing, "{narrow}");
        let remark = endpoints::remark(&list);
        return Some(endpoints::render(&list, None, true) + &printable(&remark));
    }
    let report: PolicyReport = serde_json::from_str(text).ok()?;
    let narrow = policy::render(&report, NARROW, false);
    let verdict = report
        .verdict
        .as_ref()
        .map_or(0, |verdict| 3 + usize::from(verdict.dry_run.is_some()));
    let table = match report.policies.len() {
        0 => 0,
        some => some + 1,
    };
    assert_eq!(
        narrow.lines().count(),
        verdict + table + 1 + report.notes.len(),
        "{narrow}"
    );
    Some(policy::render(&report, None, true))
}

fn rows(flows: &[FlowReport], wide: bool) -> String {
    let all: Vec<&FlowReport> = flows.iter().collect();
    let shape = Shape {
        wide,
        full: wide,
        headers: true,
        ..Shape::default()
    };
    let text = Table::new(shape, &all).text();
    assert_eq!(text.lines().count(), flows.len() + 1, "{text}");
    let narrow = Shape {
        room: Some(80),
        ..shape
    };
    let narrow = Table::new(narrow, &all).text();
    assert_eq!(narrow.lines().count(), flows.len() + 1, "{narrow}");
    let mut table = Table::new(shape, &[]).expecting_more();
    for flow in flows {
        let line = table.line(flow);
        assert_eq!(line.lines().count(), 1, "{line}");
    }
    text
}
