//! The answer to `GET /flows?watch=true`: what is open, then what happens, a line each.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Sleep;

use super::filter::{Query, State};
use super::http::{PIECE, Pieces};
use super::listing::push_json;
use super::observer::Observer;
use super::open_flows::OpenFlows;
use super::report::{FlowReport, WatchEvent};
use super::watch::{Event, Happened, Place, Watching};
use crate::model::Flow;

pub(super) struct Following {
    /// Those that were open when the watch began. An event of one of them may wait in the queue before it is told here.
    open: OpenFlows,
    /// `None` once the end was told.
    watching: Option<Watching>,
    query: Query,
    queue: usize,
    /// Until which nothing more is told.
    rest: Option<Pin<Box<Sleep>>>,
}

/// Events written at once: enough that a burst is not a packet an event.
const BATCH: usize = 64;

/// After all that waited was told. A worker whose connections end one by one then wakes who reads, and writes, fifty times a second
/// at most. Within it a queue of 1,024 takes what 25,000 connections a second open and close.
const REST: Duration = Duration::from_millis(20);

impl Following {
    /// `None` when there are as many watchers as there may be.
    pub(super) fn new(observer: &Observer, query: Query, limit: usize, place: Place) -> Option<Self> {
        // The subscription first: what opens meanwhile is in both, and is told once.
        let watching = observer.watch(place)?;
        let open = match query.state {
            Some(State::Closed) => OpenFlows::none(),
            _ => OpenFlows::find(observer, &query.filter, limit, true).0,
        };
        Some(Self {
            open,
            watching: Some(watching),
            query,
            queue: observer.watch_queue(),
            rest: None,
        })
    }

    fn tell(&mut self, lines: &mut Vec<u8>, (happened, flow): &Event) {
        if !self.query.filter.passes(flow) {
            return;
        }
        let is_new = match happened {
            Happened::Opened => !self.open.is_told(flow.id),
            // It closed before the list of open ones came to it.
            Happened::Closed => self.open.contains(flow.id) && !self.open.is_told(flow.id),
        };
        if is_new && self.wants(State::Open) {
            self.open.set_told(flow.id);
            let mut flow = Flow::clone(flow);
            flow.closed = None;
            opened(lines, &flow);
        }
        if *happened == Happened::Closed && self.wants(State::Closed) {
            let flow = FlowReport::new(flow, SystemTime::now());
            line(lines, &WatchEvent::Closed { flow });
        }
    }

    fn wants(&self, state: State) -> bool {
        self.query.state.is_none_or(|wanted| wanted == state)
    }
}

impl Pieces for Following {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut lines = Vec::new();
        while lines.len() < PIECE / 2
            && let Some(flow) = self.open.next()
        {
            opened(&mut lines, &flow);
        }
        let mut events = Vec::with_capacity(BATCH);
        while lines.is_empty() {
            if let Some(rest) = &mut self.rest {
                ready!(rest.as_mut().poll(cx));
                self.rest = None;
            }
            let Some(watching) = &mut self.watching else {
                return Poll::Ready(None);
            };
            let received = ready!(watching.events.poll_recv_many(cx, &mut events, BATCH));
            let (strangers, is_over) = (watching.take_skipped(), watching.is_over());
            for event in events.drain(..) {
                self.tell(&mut lines, &event);
            }
            if strangers > 0 {
                line(&mut lines, &WatchEvent::Skipped { strangers });
            }
            if received < BATCH {
                self.rest = Some(Box::pin(tokio::time::sleep(REST)));
            }
            if received == 0 && is_over {
                return Poll::Ready((!lines.is_empty()).then(|| lines.into()));
            }
            if received == 0 {
                // The queue was full, or it would not have ended.
                self.watching = None;
                let reason = format!("too slow: more than {} events were waiting", self.queue);
                line(&mut lines, &WatchEvent::Dropped { reason });
            }
        }
        Poll::Ready(Some(lines.into()))
    }
}

fn opened(lines: &mut Vec<u8>, flow: &Flow) {
    let flow = FlowReport::new(flow, SystemTime::now());
    line(lines, &WatchEvent::Opened { flow });
}

fn line(lines: &mut Vec<u8>, event: &WatchEvent) {
    push_json(lines, event);
    lines.push(b'\n');
}
