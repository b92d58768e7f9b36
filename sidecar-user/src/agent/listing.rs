//! The answer to `GET /flows` of an agent, written piece by piece. Reads so many of the flows that are remembered at a time that nobody else waits for it long.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::memory::{Found, Question};
use super::names::Names;
use crate::observe::{FlowReport, ListText, PIECE, Pieces};

pub(super) struct Listing {
    question: Question,
    /// Oldest first.
    open: VecDeque<FlowReport>,
    /// Which of the flows that are remembered are in that list.
    is_open: HashSet<(u32, u64)>,
    /// To be read, newest first.
    found: std::vec::IntoIter<Found>,
    /// To be written, newest first.
    closed: Vec<Found>,
    stage: Stage,
    text: ListText,
    is_truncated: bool,
    names: Arc<Names>,
}

enum Stage {
    Read,
    Begin,
    Open,
    Closed,
    Done,
}

/// Some milliseconds.
const BATCH: usize = 256;

impl Listing {
    /// `open` with the keys that they have in the memory; `is_truncated`: there were more.
    pub(super) fn new(
        question: Question,
        open: Vec<(u32, FlowReport)>,
        is_truncated: bool,
        found: Vec<Found>,
        names: Arc<Names>,
    ) -> Self {
        Self {
            question,
            is_open: open.iter().map(|(instance, flow)| (*instance, flow.id)).collect(),
            open: open.into_iter().map(|(_, flow)| flow).collect(),
            found: found.into_iter(),
            closed: Vec::new(),
            stage: Stage::Read,
            text: ListText::default(),
            is_truncated,
            names,
        }
    }

    /// Whether there is more to be read.
    fn read(&mut self) -> bool {
        for _ in 0..BATCH {
            let Some(found) = self.found.next() else {
                return false;
            };
            let passes = !self.is_open.contains(&found.key())
                && found.report().is_some_and(|flow| self.question.passes(&flow));
            if passes && self.closed.len() == self.question.limit() {
                self.is_truncated = true;
                return false;
            }
            if passes {
                self.closed.push(found);
            }
        }
        true
    }

    /// The next element, with what stands before it; `false` at the end.
    fn write(&mut self, piece: &mut Vec<u8>) -> bool {
        match self.stage {
            Stage::Read | Stage::Begin => {
                self.found = Vec::new().into_iter();
                self.text.open(piece);
                self.stage = Stage::Open;
            }
            Stage::Open => match self.open.pop_front() {
                Some(flow) => self.text.flow(piece, &flow),
                None => {
                    self.text.closed(piece);
                    self.stage = Stage::Closed;
                }
            },
            Stage::Closed => match self.closed.pop() {
                Some(found) => {
                    if let Some(mut flow) = found.report() {
                        flow.pod = flow.pod.map(|pod| self.names.of(&pod));
                        self.text.flow(piece, &flow);
                    }
                }
                None => {
                    self.text.end(piece, self.is_truncated);
                    self.stage = Stage::Done;
                }
            },
            Stage::Done => return false,
        }
        true
    }
}

impl Pieces for Listing {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if matches!(self.stage, Stage::Read) {
            if self.read() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.stage = Stage::Begin;
        }
        let mut piece = Vec::with_capacity(PIECE);
        while piece.len() < PIECE / 2 && self.write(&mut piece) {}
        Poll::Ready((!piece.is_empty()).then(|| piece.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::memory::{Limits, Memory};
    use super::*;
    use crate::model::{Cause, Direction, Flow, Outcome, Party};
    use crate::observe::FlowList;

    fn report(id: u64, cause: Option<Cause>) -> FlowReport {
        let opened = SystemTime::UNIX_EPOCH + Duration::from_secs(id);
        let mut flow = Flow::new(Direction::Outbound, "10.0.0.1:4000".parse().unwrap(), opened);
        flow.id = id;
        flow.closed = cause.map(|cause| (opened, Outcome::new(Party::Upstream, cause)));
        FlowReport::new(&flow, opened)
    }

    fn all(mut listing: Listing) -> FlowList {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut text = Vec::new();
        loop {
            match listing.poll_piece(cx) {
                Poll::Pending => {}
                Poll::Ready(Some(piece)) => text.extend_from_slice(&piece),
                Poll::Ready(None) => return serde_json::from_slice(&text).unwrap(),
            }
        }
    }

    #[test]
    fn a_list_is_whole_oldest_first_and_has_each_flow_once() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(5_000);
        let mut memory = Memory::new(Limits::default(), now);
        for id in 0..2_000 {
            let cause = [Cause::Eof, Cause::Reset][(id % 2) as usize];
            memory.closed("a", 1, report(id, Some(cause)), now);
        }
        let list = |query: &str, open: Vec<(u32, FlowReport)>| {
            let question = Question::parse(query, now).unwrap();
            let found = memory.found(&question);
            all(Listing::new(question, open, false, found, Arc::default()))
        };
        let ids = |flows: &[FlowReport]| flows.iter().map(|flow| flow.id).collect::<Vec<u64>>();

        let failed = list("failed=true&limit=3", Vec::new());
        assert_eq!(
            (ids(&failed.closed), failed.truncated),
            (vec![1995, 1997, 1999], true)
        );
        let whole = list("limit=2000", Vec::new());
        assert_eq!((whole.closed.len(), whole.truncated), (2000, false));
        assert!(whole.closed.is_sorted_by_key(|flow| flow.id));
        assert_eq!(whole.closed[0].pod.as_deref(), Some("a"));

        // The same number of another sidecar is another flow.
        let open = vec![(1, report(1999, None)), (2, report(1998, None))];
        let both = list("limit=2", open);
        assert_eq!(
            (ids(&both.open), ids(&both.closed)),
            (vec![1999, 1998], vec![1997, 1998])
        );
    }
}
