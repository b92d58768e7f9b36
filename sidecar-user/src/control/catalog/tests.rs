//! How the cluster is followed: a first view, the API server away, many changes at once.

use std::net::IpAddr;

use futures_util::stream;
use tokio::sync::mpsc;

use super::*;
use crate::kubernetes::{Node, ObjectName, WorkloadPod};
use crate::xds::{Key, Kind as Type, Resource};

fn pod(address: &str) -> WorkloadPod {
    WorkloadPod {
        name: ObjectName::new("demo", "a"),
        service_account: "web".into(),
        node: "n1".into(),
        addresses: vec![address.parse().unwrap()],
        host_network: false,
        has_proxy: true,
        ready: true,
        finished: false,
        labels: Arc::default(),
        owner: None,
    }
}

struct Driven {
    events: mpsc::UnboundedSender<Event>,
    store: Arc<Shared>,
    standing: Arc<Standing>,
    observer: Observer,
}

impl Driven {
    fn start() -> Self {
        let (events, mut received) = mpsc::unbounded_channel();
        let (store, standing) = (Arc::new(Shared::default()), Arc::new(Standing::default()));
        let observer = Observer::plain();
        let follower = Follower {
            catalog: Catalog::new(Names {
                cluster: "c1".into(),
                trust_domain: "td.test".into(),
                domain: "cluster.local".into(),
                root_namespace: "istio-system".into(),
            }),
            store: store.clone(),
            standing: standing.clone(),
            complete: observer.readiness().condition("catalog", "not yet"),
            problems: Vec::new(),
        };
        tokio::spawn(follower.follow(stream::poll_fn(move |context| received.poll_recv(context))));
        Self {
            events,
            store,
            standing,
            observer,
        }
    }

    fn send(&self, event: Event) {
        self.events.send(event).unwrap();
    }

    /// The clock is paused, so this takes no time: it passes when all tasks wait.
    async fn settle(&self) {
        tokio::time::sleep(REST * 2).await;
    }

    fn list_others(&self) {
        self.send(Event::Nodes(Change::All(vec![])));
        self.send(Event::Services(Change::All(vec![])));
        self.send(Event::Slices(Change::All(vec![])));
        self.send(Event::Authorizations(Change::All(vec![])));
        self.send(Event::Peers(Change::All(vec![])));
    }

    fn addresses(&self) -> Option<Vec<IpAddr>> {
        match &self.store.lock().get(&Key::address("c1//Pod/demo/a"))?.resource {
            Resource::Workload(workload) => Some(workload.addresses.clone()),
            _ => None,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn control_is_ready_once_every_kind_was_listed_and_not_before() {
    let driven = Driven::start();
    driven.send(Event::Pods(Change::All(vec![pod("10.0.0.1")])));
    driven.send(Event::Slices(Change::Trouble("connection refused".into())));
    driven.settle().await;
    assert_eq!(driven.addresses(), None);
    assert!(
        !driven.store.lock().knows(Type::Address, "/10.0.0.1"),
        "nobody is told that it does not exist"
    );
    let missing = driven.observer.readiness().missing().unwrap();
    assert!(missing.contains("catalog"), "{missing}");
    driven.list_others();
    driven.settle().await;
    assert!(driven.addresses().is_some() && driven.store.lock().knows(Type::Address, "/10.0.0.9"));
    assert_eq!(driven.observer.readiness().missing(), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_stays_while_the_api_server_is_away() {
    let driven = Driven::start();
    driven.list_others();
    driven.send(Event::Pods(Change::All(vec![pod("10.0.0.1")])));
    driven.settle().await;
    let known = driven.addresses();
    let changes = driven.store.follow();
    for kind in [
        |why| Event::Nodes(Change::Trouble(why)),
        |why| Event::Pods(Change::Trouble(why)),
        |why| Event::Services(Change::Trouble(why)),
        |why| Event::Slices(Change::Trouble(why)),
        |why| Event::Authorizations(Change::Trouble(why)),
        |why| Event::Peers(Change::Trouble(why)),
    ] {
        driven.send(kind("410 Gone".to_owned()));
        driven.send(kind("connection refused".to_owned()));
    }
    driven.settle().await;
    assert_eq!(
        (driven.addresses(), driven.observer.readiness().missing()),
        (known, None)
    );
    // A list that says the same wakes nobody.
    driven.list_others();
    driven.send(Event::Pods(Change::All(vec![pod("10.0.0.1")])));
    driven.settle().await;
    assert!(changes.is_empty());
    driven.send(Event::Pods(Change::All(vec![pod("10.0.0.2")])));
    driven.settle().await;
    assert_eq!(driven.addresses(), Some(vec!["10.0.0.2".parse().unwrap()]));
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_together_wake_the_streams_once() {
    let driven = Driven::start();
    driven.list_others();
    driven.send(Event::Pods(Change::All(vec![pod("10.0.0.1")])));
    driven.settle().await;
    let changes = driven.store.follow();
    for n in 0..100 {
        driven.send(Event::Pods(Change::Applied(pod(&format!("10.0.1.{n}")))));
    }
    driven.settle().await;
    assert_eq!(changes.len(), 1);
    assert_eq!(driven.addresses(), Some(vec!["10.0.1.99".parse().unwrap()]));
}

#[test]
fn a_watch_is_a_line_when_it_breaks_and_when_it_is_back() {
    let watch = figures::Watch::default();
    let heard = [
        (None, true, false),
        (Some("away"), false, true),
        (Some("away"), false, false),
        (None, true, true),
        (None, false, false),
    ];
    for (trouble, is_list, line) in heard {
        assert_eq!(watch.heard(trouble, is_list), line);
    }
}

#[tokio::test(start_paused = true)]
async fn metrics_say_what_is_known_and_how_following_goes() {
    const MANUAL: &str = include_str!("../../../../docs/observability.md");
    let driven = Driven::start();
    driven.list_others();
    driven.send(Event::Pods(Change::All(vec![pod("10.0.0.1")])));
    driven.send(Event::Nodes(Change::Applied(Node {
        name: "n1".into(),
        region: String::new(),
        zone: "z1".into(),
    })));
    driven.send(Event::Services(Change::Trouble("away".into())));
    driven.settle().await;
    let figures = figures::read(&driven.standing, driven.store.lock().len());
    let shown = format!("{figures:?}");
    for expected in [
        r#""outrigger_catalog_objects", help: "Objects of the cluster that are known", kind: Gauge, label: Some("kind"), series: [("nodes", 1), ("pods", 1), ("services", 0), ("endpointslices", 0)]"#,
        r#"series: [("nodes", 1), ("pods", 1), ("services", 0), ("endpointslices", 1), ("authorizationpolicies", 1), ("peerauthentications", 1)]"#,
        r#"series: [("nodes", 0), ("pods", 0), ("services", 1), ("endpointslices", 0), ("authorizationpolicies", 0), ("peerauthentications", 0)]"#,
    ] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    for figure in figures {
        let name = figure.exposed_name();
        assert!(MANUAL.contains(&format!("`{name}`")), "{name}");
    }
}
