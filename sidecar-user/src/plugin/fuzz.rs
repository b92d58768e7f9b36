//! What has to hold of what the plugin prints, whatever an endpoint answers: a row is a line, and names drive no terminal.

use super::table::{Shape, Table};
use super::why::render;
use crate::observe::{FlowList, FlowReport, WatchEvent, WhyReport};

/// The same text as each of the three answers.
pub(crate) fn answer(text: &str) -> Result<String, String> {
    if let Ok(list) = serde_json::from_str::<FlowList>(text) {
        return Ok(rows(&list.open, false) + &rows(&list.closed, true));
    }
    match serde_json::from_str::<WatchEvent>(text) {
        Ok(WatchEvent::Opened { flow } | WatchEvent::Closed { flow }) => return Ok(rows(&[flow], true)),
        Ok(WatchEvent::Skipped { .. } | WatchEvent::Dropped { .. }) => return Ok(String::new()),
        Err(_) => {}
    }
    let report: WhyReport = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let text = render(&report);
    let lines =
        1 + report.reasons.len() + report.endpoints.len() + usize::from(report.kernel_event.is_some());
    assert_eq!(text.lines().count(), lines, "{text}");
    Ok(text)
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
