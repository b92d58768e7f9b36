//! A flow that is remembered, for who reads it: shares its text with the memory, and needs no lock.

use std::cmp::Reverse;
use std::sync::Arc;

use super::kept::Record;
use super::query::Question;
use crate::observe::FlowReport;

#[derive(Clone, Debug)]
pub struct Found {
    pod: Arc<str>,
    at: u64,
    number: u64,
    instance: u32,
    id: u64,
    json: Arc<str>,
}

impl Found {
    pub(super) fn new(pod: &Arc<str>, record: &Record) -> Self {
        Self {
            pod: pod.clone(),
            at: record.at,
            number: record.number,
            instance: record.instance,
            id: record.id,
            json: record.json.clone(),
        }
    }

    /// The newest is the least.
    pub(super) fn age(&self) -> Reverse<(u64, u64)> {
        Reverse((self.at, self.number))
    }

    /// Of which proxy, and which of its flows.
    pub fn key(&self) -> (u32, u64) {
        (self.instance, self.id)
    }

    pub fn report(&self) -> Option<FlowReport> {
        let mut report: FlowReport = serde_json::from_str(&self.json).ok()?;
        report.pod = Some(self.pod.to_string());
        Some(report)
    }
}

/// The newest of them that pass, newest first, and whether more passed. Reads each that may pass.
pub fn newest(found: &[Found], question: &Question) -> (Vec<FlowReport>, bool) {
    let mut reports = Vec::new();
    for flow in found.iter().filter_map(Found::report) {
        if !question.passes(&flow) {
            continue;
        }
        if reports.len() == question.limit() {
            return (reports, true);
        }
        reports.push(flow);
    }
    (reports, false)
}
