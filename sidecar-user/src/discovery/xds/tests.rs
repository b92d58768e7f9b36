//! A sidecar's registry from an agent: servers and clients over socket pairs, without a kernel and without a cluster.

use super::*;
use crate::model::SpiffeId;
use crate::model::authorization::Scope;
use crate::xds::testing::{policy, service, workload};
use crate::xds::{Discovery, Guests, Link, Resource, Update};

/// A discovery server at a Unix socket pair for each stream, as an agent has it.
struct Server {
    shared: Arc<Shared>,
    up: watch::Sender<bool>,
}

impl Server {
    fn new() -> Self {
        Self {
            shared: Arc::default(),
            up: watch::Sender::new(true),
        }
    }

    fn connect(&self) -> Connect {
        let (shared, up) = (self.shared.clone(), self.up.clone());
        Arc::new(move || {
            let (shared, up) = (shared.clone(), up.clone());
            Box::pin(async move {
                if !*up.borrow() {
                    return Err("it is away".to_owned());
                }
                Ok(Link::new(
                    crate::xds::testing::channel(Discovery::new(shared, Guests::Nodes), up),
                    None,
                ))
            })
        })
    }
}

fn own() -> Own {
    Own {
        name: "web-1".into(),
        identity: SpiffeId::new("td.test", "demo", "web-1").unwrap(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        node: "n1".into(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn start(server: &Server, idle: Duration) -> (Feed, Demand) {
    let limits = DemandLimits { idle, names: 100 };
    let (feed, demand, future) = follow_for(&own(), "the agent of this node", server.connect(), limits);
    tokio::spawn(future);
    (feed, demand)
}

fn fill(shared: &Shared) {
    let pods =
        (0..200u8).map(|n| Update::Put(workload(&format!("p{n}"), &format!("10.0.1.{n}"), &["other"])));
    shared.apply(pods);
    shared.apply([
        Update::Put(workload("web-1", "10.0.0.1", &["web"])),
        Update::Put(workload("web-2", "10.0.0.2", &["web"])),
        Update::Put(service("web", &["10.96.0.1"])),
        Update::Put(service("other", &["10.96.0.2"])),
        Update::Put(policy("demo", "p", Scope::Namespace)),
    ]);
}

#[tokio::test]
async fn a_sidecar_holds_its_own_workload_and_what_it_asks_for() {
    let server = Server::new();
    fill(&server.shared);
    let (mut feed, demand) = start(&server, IDLE);
    assert!(!feed.snapshots.borrow().knows(ip("10.0.0.1")));
    // The server does not know the world yet, and so the sidecar is told nothing.
    assert_eq!(feed.status.borrow().generation, 0);
    server.shared.complete();
    let world = demand.begun(&feed.snapshots).await.expect("it answers");
    assert_eq!(world.addresses().count(), 1);
    assert!(world.workload_by_address(ip("10.0.0.1")).is_some());
    assert_eq!(world.policies_in("demo").namespace.len(), 1);
    assert!(!world.knows(ip("10.96.0.1")));
    let world = demand
        .ask(&feed.snapshots, ip("10.96.0.1"))
        .await
        .expect("it answers");
    let (found, endpoints) = world
        .service_at("10.96.0.1:80".parse().unwrap())
        .expect("it is there");
    assert_eq!(
        (&*found.name.hostname, endpoints.len()),
        ("web.demo.svc.cluster.local", 2)
    );
    // Nobody has this one, and that is known.
    let world = demand
        .ask(&feed.snapshots, ip("192.0.2.1"))
        .await
        .expect("it answers");
    assert!(world.knows(ip("192.0.2.1")) && world.workload_by_address(ip("192.0.2.1")).is_none());
    assert_eq!(world.addresses().count(), 2, "nothing of the other service");
    // What changes later is told without being asked for.
    server
        .shared
        .apply([Update::Put(workload("web-3", "10.0.0.3", &["web"]))]);
    let grown = feed
        .snapshots
        .wait_for(|world| world.addresses().count() == 3)
        .await;
    assert!(grown.is_ok());
}

#[tokio::test]
async fn what_was_heard_last_holds_while_nobody_answers_and_what_is_new_is_not_known() {
    let server = Server::new();
    fill(&server.shared);
    server.shared.complete();
    let (mut feed, demand) = start(&server, IDLE);
    demand.begun(&feed.snapshots).await.expect("it answers");
    server.up.send_replace(false);
    feed.status
        .wait_for(|status| status.error.is_some())
        .await
        .unwrap();
    let world = feed.snapshots.borrow().clone();
    assert!(world.knows(ip("10.0.0.1")) && world.workload_by_address(ip("10.0.0.1")).is_some());
    let asked = {
        let (demand, snapshots) = (demand.clone(), feed.snapshots.clone());
        tokio::spawn(async move { demand.ask(&snapshots, ip("10.96.0.2")).await })
    };
    tokio::task::yield_now().await;
    assert!(!feed.snapshots.borrow().knows(ip("10.96.0.2")));
    // It comes back before the asker has lost its patience, and another pod with it.
    server
        .shared
        .apply([Update::Remove(crate::xds::Key::address("cluster//Pod/demo/p7"))]);
    server.up.send_replace(true);
    let world = asked.await.unwrap().expect("it answers again");
    let (_, endpoints) = world
        .service_at("10.96.0.2:80".parse().unwrap())
        .expect("it is there");
    assert_eq!(endpoints.len(), 199);
    feed.status
        .wait_for(|status| status.error.is_none())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_private_service_is_known_in_its_namespace_and_a_shared_address_tells_nobody() {
    let server = Server::new();
    fill(&server.shared);
    let private = |namespace: &str, vip: &str| {
        let Resource::Service(mut private) = service("private", &[vip]) else {
            panic!("it is one");
        };
        (private.namespace, private.private) = (namespace.into(), true);
        Update::Put(Resource::Service(private))
    };
    let Resource::Workload(mut shared) = workload("of-the-node", "10.0.9.9", &["web"]) else {
        panic!("it is one");
    };
    shared.host_network = true;
    server.shared.apply([
        private("other", "10.96.0.9"),
        private("demo", "10.96.0.8"),
        Update::Put(Resource::Workload(shared)),
    ]);
    server.shared.complete();
    let (feed, demand) = start(&server, IDLE);
    demand.begun(&feed.snapshots).await.expect("it answers");
    for (vip, is_known) in [("10.96.0.9", false), ("10.96.0.8", true)] {
        let world = demand.ask(&feed.snapshots, ip(vip)).await.expect("it answers");
        assert_eq!(world.is_vip(ip(vip)), is_known, "{vip}");
    }
    let world = demand.ask(&feed.snapshots, ip("10.0.9.9")).await;
    assert!(
        world
            .expect("it answers")
            .workload_by_address(ip("10.0.9.9"))
            .is_none()
    );
    let world = demand
        .ask(&feed.snapshots, ip("10.96.0.1"))
        .await
        .expect("it answers");
    let (_, endpoints) = world
        .service_at("10.96.0.1:80".parse().unwrap())
        .expect("it is there");
    assert_eq!(endpoints.len(), 3, "behind its service it stands all the same");
}

#[tokio::test]
async fn what_nothing_dials_any_more_is_given_up() {
    let server = Server::new();
    fill(&server.shared);
    server.shared.complete();
    let (mut feed, demand) = start(&server, Duration::from_millis(50));
    demand
        .ask(&feed.snapshots, ip("10.96.0.2"))
        .await
        .expect("it answers");
    let empty = feed
        .snapshots
        .wait_for(|world| world.addresses().count() == 1)
        .await;
    assert!(!empty.unwrap().knows(ip("10.96.0.2")));
    assert!(feed.snapshots.borrow().knows(ip("10.0.0.1")), "its own stays");
}

/// What has been used since the last look is kept for another while, and nothing else is.
#[test]
fn a_use_of_an_address_keeps_it_and_one_that_was_seen_already_does_not() {
    let (idle, start) = (Duration::from_secs(60), Instant::now());
    let demands = Demands::new(DemandLimits { idle, names: 10 });
    let [used, unused] = ["10.0.0.8", "10.0.0.9"].map(ip);
    let usage: HashMap<IpAddr, Arc<Usage>> = [used, unused].map(|ip| (ip, Arc::default())).into();
    for ip in [used, unused] {
        demands.touch(&address_key("", ip), start);
    }
    demands.due(start);
    usage[&used].mark();
    let publisher = Publisher {
        shared: Arc::default(),
        _own: demands.needs(),
        demands: demands.clone(),
        names: Vec::new(),
        namespace: "demo".into(),
        snapshots: watch::channel(Arc::default()).0,
        status: watch::channel(Status {
            generation: 0,
            loaded: SystemTime::now(),
            failures: 0,
            error: None,
            warnings: Vec::new(),
        })
        .0,
        usage,
        teller: "the agent of this node",
    };
    // Names go after one time to one and a half.
    publisher.keep_used(start + idle * 5 / 6);
    assert_eq!(
        demands.due(start + idle * 5 / 3).unwanted,
        [address_key("", unused)]
    );
    publisher.keep_used(start + idle * 5 / 3);
    assert_eq!(demands.due(start + idle * 3).unwanted, [address_key("", used)]);
}

/// A silent server: whoever asks is told so, in the end.
#[tokio::test(start_paused = true)]
async fn an_address_about_which_nobody_answers_is_not_waited_for_for_ever() {
    let (_snapshots, world) = watch::channel(Arc::new(Snapshot::default().with_known(HashMap::new())));
    let demands = Demands::new(DemandLimits {
        idle: IDLE,
        names: 10,
    });
    let demand = Demand::of(demands.clone());
    assert!(demand.ask(&world, ip("10.0.0.9")).await.is_none());
    assert!(demand.begun(&world).await.is_none());
    assert_eq!(demands.len(), 1);
}

/// control → agent → sidecar, with 20,000 pods behind 200 services.
#[tokio::test]
async fn of_a_large_mesh_agent_and_sidecar_hold_what_is_dialled_and_no_more() {
    let control = Server::new();
    let pods = (0..20_000u32).map(|n| {
        let address = format!("10.{}.{}.{}", 8 + n / 60_000, n / 250, n % 250);
        Update::Put(workload(&format!("x{n}"), &address, &[&format!("s{}", n % 200)]))
    });
    control.shared.apply(pods);
    control
        .shared
        .apply((0..200).map(|n| Update::Put(service(&format!("s{n}"), &[&format!("10.96.1.{n}")]))));
    fill(&control.shared);
    control.shared.complete();
    let agent = Server::new();
    let demands = Demands::new(DemandLimits {
        idle: Duration::from_millis(50),
        names: 1000,
    });
    let (following, _followed) = watch::channel(Following::default());
    let follower = Follower {
        node: Node::default(),
        shared: agent.shared.clone(),
        demands: demands.clone(),
        connect: control.connect(),
        following,
    };
    tokio::spawn(follower.run());
    let (shared, up) = (agent.shared.clone(), agent.up.clone());
    let served = Discovery::new(shared.clone(), Guests::Sidecars(demands.clone()));
    let to_agent: Connect = {
        let served = served.clone();
        Arc::new(move || {
            let channel = crate::xds::testing::channel(served.clone(), up.clone());
            Box::pin(async move { Ok(Link::new(channel, None)) })
        })
    };
    let limits = DemandLimits {
        idle: IDLE,
        names: 100,
    };
    let (feed, demand, future) = follow_for(&own(), "the agent of this node", to_agent, limits);
    let sidecar = tokio::spawn(future);
    demand.begun(&feed.snapshots).await.expect("it answers");
    // Its own workload, and the policy of its namespace.
    assert_eq!(shared.lock().len(), 2);
    let world = demand
        .ask(&feed.snapshots, ip("10.96.1.7"))
        .await
        .expect("it answers");
    let (_, endpoints) = world
        .service_at("10.96.1.7:80".parse().unwrap())
        .expect("it is there");
    assert_eq!(endpoints.len(), 100);
    assert_eq!(world.addresses().count(), 101);
    assert_eq!(shared.lock().len(), 2 + 101);
    // The sidecar ends, and its agent gives up what it alone has needed.
    sidecar.abort();
    let mut changes = shared.follow();
    while shared.lock().of_kind(Kind::Address).next().is_some() {
        changes.recv().await.expect("it is followed");
    }
    assert!(demands.is_empty());
}
