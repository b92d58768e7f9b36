//! Keeps what discovery serves as the cluster is: the API server's watches → `discovery::catalog` → the store of its streams.
//!
//! It serves nobody itself. While the API server is away, what was heard last holds, and the metrics say so.

mod figures;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::stream::{Stream, StreamExt, select_all};
use tracing::{info, warn};

use crate::discovery::catalog::{Catalog, Event, Kind, Names};
use crate::discovery::istio::Problem;
use crate::kubernetes::{self, Change, Client};
use crate::observe::{Condition, Observer};
use crate::xds::Shared;
use figures::Standing;

/// After a change, until the next ones are looked at together. A rolling update changes a slice many times a second, and every
/// stream is woken once for all that has come meanwhile.
const REST: Duration = Duration::from_millis(50);

/// Changes that are taken without letting the streams run in between.
const TOGETHER: usize = 500;

/// Readiness waits for the first complete view.
pub(super) fn start(client: &Client, names: Names, observer: &Observer) -> Arc<Shared> {
    let store = Arc::new(Shared::default());
    let standing = Arc::new(Standing::default());
    figures::show(observer, standing.clone(), store.clone());
    let complete = observer
        .readiness()
        .condition("catalog", "the objects of the cluster have not been listed yet");
    let follower = Follower {
        catalog: Catalog::new(names),
        store: store.clone(),
        standing,
        complete,
        problems: Vec::new(),
    };
    tokio::spawn(follower.follow(watches(client)));
    store
}

fn watches(client: &Client) -> impl Stream<Item = Event> + Send + use<> {
    select_all([
        kubernetes::nodes(client).map(Event::Nodes).boxed(),
        kubernetes::workload_pods(client).map(Event::Pods).boxed(),
        kubernetes::services(client).map(Event::Services).boxed(),
        kubernetes::slices(client).map(Event::Slices).boxed(),
        kubernetes::authorization_policies(client)
            .map(Event::Authorizations)
            .boxed(),
        kubernetes::peer_authentications(client).map(Event::Peers).boxed(),
    ])
}

struct Follower {
    catalog: Catalog,
    store: Arc<Shared>,
    standing: Arc<Standing>,
    complete: Condition,
    /// What has been logged of policies.
    problems: Vec<Problem>,
}

impl Follower {
    /// Ends with the stream, which a watch never does.
    async fn follow(mut self, events: impl Stream<Item = Event>) {
        let mut events = std::pin::pin!(events);
        while let Some(first) = events.next().await {
            let was_complete = self.is_complete();
            let mut triggered = triggered(&first);
            let mut updates = self.take(first);
            for _ in 1..TOGETHER {
                let Some(Some(event)) = events.next().now_or_never() else {
                    break;
                };
                triggered = triggered.max(self::triggered(&event));
                updates.extend(self.take(event));
            }
            self.store.apply(updates);
            self.standing.count(self.catalog.counts());
            if let Some(since) = triggered {
                self.standing
                    .lag(SystemTime::now().duration_since(since).unwrap_or_default());
            }
            if self.is_complete() && !was_complete {
                self.store.complete();
                self.complete.met();
                let counts = self.catalog.counts();
                info!(
                    nodes = counts.nodes,
                    pods = counts.pods,
                    services = counts.services,
                    endpointslices = counts.slices,
                    "the objects of the cluster are known"
                );
            }
            tokio::time::sleep(REST).await;
        }
    }

    fn is_complete(&self) -> bool {
        self.catalog.awaited().next().is_none()
    }

    fn take(&mut self, event: Event) -> Vec<crate::xds::Update> {
        let kind = event.kind();
        match (
            event.trouble(),
            self.standing.of(kind).heard(event.trouble(), event.is_list()),
        ) {
            (Some(error), true) => warn!(
                objects = kind.name(),
                error, "the API server cannot be asked; what is known of them stays in force"
            ),
            (None, true) => info!(objects = kind.name(), "the API server answers again"),
            (_, false) => {}
        }
        let updates = self.catalog.take(event);
        if matches!(kind, Kind::Authorizations | Kind::Peers) {
            let now = self.catalog.problems();
            for Problem { object, what, remedy } in
                now.iter().filter(|problem| !self.problems.contains(problem))
            {
                warn!(object, what, remedy, "a policy is not followed as it is written");
            }
            self.standing.problems(now.len());
            self.problems = now;
        }
        updates
    }
}

/// When what a changed slice tells of has happened. A list tells of what is old.
fn triggered(event: &Event) -> Option<SystemTime> {
    match event {
        Event::Slices(Change::Applied(slice)) => slice.triggered,
        _ => None,
    }
}

impl Standing {
    fn of(&self, kind: Kind) -> &figures::Watch {
        &self.watches[kind as usize]
    }
}
