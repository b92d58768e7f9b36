//! Asks all targets at the same time, by two threads each: one follows what opens and closes, one asks every now and then what is open, which
//! alone tells how many bytes have gone. Who does not answer is asked again. The threads end with the process.

use std::io::BufRead;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::super::access::Source;
use super::super::client;
use super::super::columns::printable;
use super::super::error::Error;
use crate::observe::{FlowList, WatchEvent};

/// What a thread tells of its target, by number.
#[derive(Debug)]
pub(super) enum News {
    Event(usize, Box<WatchEvent>),
    /// And whether these are all.
    OpenFlows(usize, FlowList),
    /// It was not to be asked, and will be asked again.
    Lost(usize, String),
    /// Somebody wants this process to end.
    End,
}

/// Events that wait to be drawn: about a second of a busy node. Beyond them the endpoint's own queue fills.
const QUEUE: usize = 8_192;
/// Open flows in one answer; an agent gives no more.
const LIMIT: usize = 10_000;
/// Between two attempts to reach a target: once a second at first, and then less often.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(15);

/// `filter` is of the query, each parameter with `&` behind it.
pub(super) fn start(
    targets: Vec<Source>,
    filter: &str,
    interval: Duration,
) -> Result<(SyncSender<News>, Receiver<News>), Error> {
    let (sender, receiver) = sync_channel(QUEUE);
    for (n, source) in targets.into_iter().enumerate() {
        let source = Arc::new(source);
        let feed = Feed {
            n,
            source: source.clone(),
            news: sender.clone(),
            path: format!("/flows?watch=true&{filter}limit={LIMIT}"),
        };
        spawn("follow", move || feed.follow())?;
        let feed = Feed {
            n,
            source,
            news: sender.clone(),
            path: format!("/flows?state=open&{filter}limit={LIMIT}"),
        };
        spawn("list", move || feed.list(interval))?;
    }
    Ok((sender, receiver))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|source| Error::Terminal { source })
}

/// Of a thread that has nothing else to do, and nobody waits for.
#[expect(
    clippy::disallowed_methods,
    reason = "a time between two questions is what is wanted"
)]
fn rest(time: Duration) {
    thread::sleep(time);
}

struct Feed {
    n: usize,
    source: Arc<Source>,
    news: SyncSender<News>,
    path: String,
}

impl Feed {
    fn follow(&self) {
        let mut retry = RETRY;
        loop {
            let began = Instant::now();
            let told = match self.events() {
                Ok(told) => told,
                Err(error) => self.tell(News::Lost(self.n, printable(&error.to_string()))),
            };
            if !told {
                return;
            }
            if began.elapsed() > MAX_RETRY {
                retry = RETRY;
            }
            rest(retry);
            retry = (retry * 2).min(MAX_RETRY);
        }
    }

    /// Until the stream ends; `false`: nobody listens any more.
    fn events(&self) -> Result<bool, Error> {
        let answer = client::get(&self.source.target, &self.source.path(&self.path), None)?;
        for line in answer.into_body().lines() {
            let line = line.map_err(|source| Error::Unreachable {
                target: self.source.target.to_string(),
                source,
            })?;
            let event: WatchEvent = serde_json::from_str(&line).map_err(|error| self.not_flows(&error))?;
            if let WatchEvent::Dropped { reason } = event {
                return Err(self.ended(reason));
            }
            if !self.tell(News::Event(self.n, event.into())) {
                return Ok(false);
            }
        }
        Err(self.ended("it stopped".to_owned()))
    }

    fn not_flows(&self, error: &serde_json::Error) -> Error {
        Error::NotFlows {
            target: self.source.target.to_string(),
            reason: error.to_string(),
        }
    }

    fn ended(&self, reason: String) -> Error {
        Error::Ended {
            target: self.source.target.to_string(),
            reason,
        }
    }

    fn list(&self, interval: Duration) {
        loop {
            let list = self.source.get(&self.path);
            let list =
                list.and_then(|body| serde_json::from_str(&body).map_err(|error| self.not_flows(&error)));
            // Of a target that does not answer the other thread tells.
            if let Ok(list) = list
                && !self.tell(News::OpenFlows(self.n, list))
            {
                return;
            }
            rest(interval);
        }
    }

    fn tell(&self, news: News) -> bool {
        self.news.send(news).is_ok()
    }
}
