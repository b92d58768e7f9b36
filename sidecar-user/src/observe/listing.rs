//! The answer to `GET /flows`, written piece by piece.

use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;

use super::filter::{Query, State};
use super::http::{PIECE, Pieces};
use super::observer::Observer;
use super::open_flows::OpenFlows;
use super::report::FlowReport;
use super::ring::ClosedId;
use crate::model::Flow;

pub(super) struct Listing {
    observer: Observer,
    query: Query,
    limit: usize,
    open: OpenFlows,
    stage: Stage,
    text: ListText,
    is_truncated: bool,
    now: SystemTime,
}

enum Stage {
    Begin,
    Open,
    Closed(std::vec::IntoIter<ClosedId>),
    Done,
}

impl Listing {
    pub(super) fn new(observer: Observer, query: Query, limit: usize) -> Self {
        let (open, is_truncated) = match query.state {
            Some(State::Closed) => (OpenFlows::none(), false),
            _ => OpenFlows::find(&observer, &query.filter, limit, false),
        };
        Self {
            observer,
            query,
            limit,
            open,
            stage: Stage::Begin,
            text: ListText::default(),
            is_truncated,
            now: SystemTime::now(),
        }
    }

    /// Open flows first: one that closes in between is then in the second list, if it is not in the first.
    fn closed(&mut self) -> Vec<ClosedId> {
        if self.query.state == Some(State::Open) {
            return Vec::new();
        }
        let wanted = |flow: &Flow| self.query.filter.passes(flow) && !self.open.is_told(flow.id);
        let (found, is_truncated) = self.observer.closed().newest(self.limit, wanted);
        self.is_truncated |= is_truncated;
        found
    }

    /// The next element, with what stands before it; `false` at the end.
    fn write(&mut self, piece: &mut Vec<u8>) -> bool {
        match &mut self.stage {
            Stage::Begin => {
                self.text.open(piece);
                self.stage = Stage::Open;
            }
            Stage::Open => match self.open.next() {
                Some(flow) => self.element(piece, &flow),
                None => {
                    self.text.closed(piece);
                    self.stage = Stage::Closed(self.closed().into_iter());
                }
            },
            Stage::Closed(ids) => match ids.next() {
                Some(id) => match self.observer.closed().get(id) {
                    Some(flow) => self.element(piece, &flow),
                    // Pushed out while the answer was under way.
                    None => self.is_truncated = true,
                },
                None => {
                    self.text.end(piece, self.is_truncated);
                    self.stage = Stage::Done;
                }
            },
            Stage::Done => return false,
        }
        true
    }

    fn element(&mut self, piece: &mut Vec<u8>, flow: &Flow) {
        self.text.flow(piece, &FlowReport::new(flow, self.now));
    }
}

impl Pieces for Listing {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut piece = Vec::with_capacity(PIECE);
        while piece.len() < PIECE / 2 && self.write(&mut piece) {}
        Poll::Ready((!piece.is_empty()).then(|| piece.into()))
    }
}

/// [`super::report::FlowList`] as JSON, with its fields in this order. To be called in the order of the methods.
#[derive(Debug, Default)]
pub struct ListText {
    /// Something stands before the next flow of its list.
    has_flow: bool,
}

impl ListText {
    /// Those that are open come next.
    pub fn open(&mut self, piece: &mut Vec<u8>) {
        piece.extend_from_slice(br#"{"open":["#);
    }

    /// Those that have closed come next.
    pub fn closed(&mut self, piece: &mut Vec<u8>) {
        piece.extend_from_slice(br#"],"closed":["#);
        self.has_flow = false;
    }

    pub fn flow(&mut self, piece: &mut Vec<u8>, flow: &FlowReport) {
        if std::mem::replace(&mut self.has_flow, true) {
            piece.push(b',');
        }
        push_json(piece, flow);
    }

    pub fn end(&self, piece: &mut Vec<u8>, is_truncated: bool) {
        let end = format!("],\"truncated\":{is_truncated}}}\n");
        piece.extend_from_slice(end.as_bytes());
    }
}

/// Strings, numbers and options: there is nothing in a report that JSON cannot say.
pub(super) fn push_json(piece: &mut Vec<u8>, value: &impl serde::Serialize) {
    if let Err(error) = serde_json::to_writer(piece, value) {
        tracing::error!(%error, "a report cannot be written as JSON");
    }
}
