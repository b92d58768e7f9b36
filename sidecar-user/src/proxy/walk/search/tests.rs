//! Rounds over the endpoints of a built registry. Nothing is dialled, and time stands still unless it is slept.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::rc::Rc;

use tokio::time::Instant;

use super::*;
use crate::model::workload::{TunnelProtocol, Workload};
use crate::model::{Affinity, Locality, Service, ServiceName, SpiffeId};
use crate::transport::Step;

const VIP: &str = "10.96.0.1:80";

fn world(endpoints: u8, protocol: TunnelProtocol) -> Arc<Snapshot> {
    world_with(endpoints, protocol, Service::default())
}

/// The service is `like` that one.
fn world_with(endpoints: u8, protocol: TunnelProtocol, like: Service) -> Arc<Snapshot> {
    let name = ServiceName {
        namespace: "t".into(),
        hostname: "echo.t.svc".into(),
    };
    let serves = BTreeMap::from([(name.clone(), BTreeMap::from([(80, 8080)]))]);
    let workload = |n| Workload {
        uid: format!("w{n}"),
        name: format!("w{n}"),
        namespace: "t".into(),
        identity: SpiffeId::new("td.test", "t", "echo").unwrap(),
        addresses: vec![format!("10.1.0.{n}").parse().unwrap()],
        protocol,
        healthy: true,
        capacity: 1,
        locality: Locality::default(),
        node: String::new(),
    };
    let service = Service {
        name,
        vips: vec!["10.96.0.1".parse().unwrap()],
        ports: [(80, 8080)].into(),
        ..like
    };
    let workloads = (1..=endpoints).map(|n| (workload(n), serves.clone())).collect();
    Arc::new(Snapshot::build(&Snapshot::default(), vec![service], workloads))
}

/// A pod that nothing is known of, and that stays with nobody for longer than its test.
fn stranger() -> Client<'static> {
    let own = Own {
        name: "a".into(),
        identity: SpiffeId::new("td.test", "t", "a").unwrap(),
        addresses: Vec::new(),
        node: String::new(),
    };
    Client {
        own: Box::leak(Box::new(own)),
        affinities: Box::leak(Box::default()),
    }
}

fn search(held: bool, world: Arc<Snapshot>) -> Search<'static> {
    search_of(stranger(), held, world)
}

fn search_of(client: Client<'_>, held: bool, world: Arc<Snapshot>) -> Search<'_> {
    let dst = OriginalDst(VIP.parse().unwrap());
    Search::new(client, dst, Unknown::PassThrough, held, world)
}

fn refused(addr: SocketAddr) -> Error {
    Error::Connect {
        addr,
        source: Rc::new(io::ErrorKind::ConnectionRefused.into()),
    }
}

fn silent(addr: SocketAddr) -> Error {
    Error::TimedOut {
        addr,
        what: Step::Connect,
        after: Duration::from_secs(1),
    }
}

/// Each endpoint of a round fails, with the next of these errors. Says which were tried.
fn round(search: &mut Search<'_>, errors: &[fn(SocketAddr) -> Error]) -> Vec<SocketAddr> {
    let mut tried = Vec::new();
    let mut errors = errors.iter().cycle();
    while let Some((up, transport)) = search.next() {
        let error = errors.next().unwrap()(up.endpoint);
        search.failed((&up, transport), &error, None).unwrap();
        tried.push(up.endpoint);
    }
    tried
}

async fn end(search: &mut Search<'_>) -> Cause {
    let ended = search.another_round(Arc::default).await;
    ended.expect_err("another round").outcome.cause
}

#[tokio::test(start_paused = true)]
async fn a_round_tries_three_endpoints_and_none_of_them_twice() {
    let mut search = search(true, world(5, TunnelProtocol::None));
    let tried: HashSet<SocketAddr> = round(&mut search, &[refused]).into_iter().collect();
    assert_eq!(tried.len(), ATTEMPTS);
    assert_eq!(end(&mut search).await, Cause::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn silence_is_no_answer_where_another_endpoint_has_refused() {
    for errors in [[refused, silent], [silent, refused]] {
        let mut search = search(true, world(2, TunnelProtocol::None));
        assert_eq!(round(&mut search, &errors).len(), 2);
        assert_eq!(end(&mut search).await, Cause::ConnectionRefused);
    }
}

#[tokio::test(start_paused = true)]
async fn an_application_that_still_waits_is_not_told_that_nobody_has_answered() {
    let begun = Instant::now();
    let mut waits = search(true, world(2, TunnelProtocol::None));
    for _ in 0..3 {
        assert_eq!(round(&mut waits, &[silent]).len(), 2, "each once a round");
        assert!(waits.another_round(Arc::default).await.is_ok());
    }
    assert_eq!(begun.elapsed(), 3 * PAUSE);

    let mut is_connected = search(false, world(2, TunnelProtocol::None));
    round(&mut is_connected, &[silent]);
    assert_eq!(end(&mut is_connected).await, Cause::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_is_away_for_a_moment_is_asked_again_where_the_registry_has_it_then() {
    let mut search = search(false, world(1, TunnelProtocol::Hbone));
    assert_eq!(round(&mut search, &[refused]).len(), 1);
    let moved = world(2, TunnelProtocol::Hbone);
    assert!(search.another_round(|| moved.clone()).await.is_ok());
    assert_eq!(round(&mut search, &[refused]).len(), 2);
}

#[test]
fn what_is_our_own_fault_ends_the_search_at_once() {
    let mut search = search(true, world(2, TunnelProtocol::Hbone));
    let (up, transport) = search.next().unwrap();
    let failed = search.failed((&up, transport), &Error::NoIdentity, None);
    assert_eq!(failed.expect_err("our fault").outcome.cause, Cause::NoIdentity);
}

#[tokio::test(start_paused = true)]
async fn a_service_without_an_endpoint_is_refused() {
    let mut search = search(true, world(0, TunnelProtocol::None));
    assert!(search.next().is_none());
    // The flow names the service, or nobody would know what was dialled.
    let service = search.service().map(|service| service.hostname);
    assert_eq!(service.as_deref(), Some("echo.t.svc"));
    assert_eq!(end(&mut search).await, Cause::NoEndpoint);
}

fn with_affinity() -> Service {
    let timeout = Duration::from_secs(3600);
    Service {
        affinity: Some(Affinity { timeout }),
        ..Service::default()
    }
}

#[test]
fn with_session_affinity_all_connections_of_a_pod_go_to_one_endpoint_until_it_fails() {
    let world = world_with(20, TunnelProtocol::None, with_affinity());
    let client = stranger();
    let next = || search_of(client, true, world.clone()).next().unwrap().0.endpoint;
    let first = next();
    assert!((0..50).all(|_| next() == first));

    let mut unlucky = search_of(client, true, world.clone());
    let (up, transport) = unlucky.next().unwrap();
    unlucky
        .failed((&up, transport), &refused(up.endpoint), None)
        .unwrap();
    let second = unlucky.next().unwrap().0.endpoint;
    assert_ne!(second, first);
    assert!((0..50).all(|_| next() == second), "the one that was chosen anew");

    let other: HashSet<SocketAddr> = (0..50)
        .map(|_| search(true, world.clone()).next().unwrap().0.endpoint)
        .collect();
    assert!(other.len() > 1, "each of other pods chooses for itself");
}

#[test]
fn a_session_goes_to_another_endpoint_when_its_own_has_gone_from_the_registry() {
    let client = stranger();
    let old = world_with(1, TunnelProtocol::None, with_affinity());
    search_of(client, true, old).next().unwrap();
    let next = |n| {
        let world = world_with(n, TunnelProtocol::None, with_affinity());
        search_of(client, true, world).next().map(|(up, _)| up.endpoint)
    };
    let first = next(9).unwrap();
    assert_eq!(first, "10.1.0.1:8080".parse().unwrap(), "it is still there");
    assert_eq!(next(0), None);
    assert_eq!(next(9).unwrap(), first, "nobody else was chosen in between");
}
