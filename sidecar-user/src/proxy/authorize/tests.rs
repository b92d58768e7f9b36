//! What open connections are judged by when the registry changes, by built worlds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::LocalSet;

use super::super::shard::tests::settings;
use super::*;
use crate::discovery::Demand;
use crate::model::authorization::{Action, Clause, Condition, Match, Policy, PolicyName, Rule, Scope};
use crate::model::snapshot::{Serves, Usage};
use crate::model::{TunnelProtocol, Workload};
use crate::observe::Observer;
use crate::policy::authorization::Denial;
use crate::xds::{DemandLimits, Demands};

#[test]
fn what_the_mode_refuses_is_not_what_a_policy_denies() {
    let observer = Observer::new();
    let (meters, peer) = (
        observer.meters(),
        SpiffeId::new("td.test", "demo", "web").unwrap(),
    );
    let by_policy = Denied::Policy(Denial::NotAllowed);
    count_denied(meters, &Denied::Plaintext, None);
    count_denied(meters, &by_policy, None);
    count_denied(meters, &by_policy, Some(&peer));
    count_denied(meters, &by_policy, Some(&peer));
    let counted = [
        meters.plaintext_refused.get(),
        meters.denied.of("plain").get(),
        meters.denied.of("hbone").get(),
    ];
    assert_eq!(counted, [1, 1, 2]);
}

const PEER4: &str = "10.0.0.1";
const PEER6: &str = "fd00::1";

fn workload(name: &str, addresses: &[&str]) -> Workload {
    Workload {
        uid: name.into(),
        name: name.into(),
        namespace: "demo".into(),
        identity: SpiffeId::new("cluster.local", "demo", name).unwrap(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        protocol: TunnelProtocol::Hbone,
        healthy: true,
        capacity: 1,
        locality: Default::default(),
        node: String::new(),
    }
}

/// Only whoever has an address of fd00::/8 is let in, and the peer is known with these addresses; `None`: it is not known.
fn world(before: &Snapshot, peer: Option<&[&str]>) -> Snapshot {
    let own = workload("server", &["10.0.0.2"]);
    let source_ips = Condition {
        any_of: vec!["fd00::/8".parse().unwrap()],
        none_of: Vec::new(),
    };
    let policy = Policy {
        name: PolicyName {
            namespace: "demo".into(),
            name: "v6".into(),
        },
        scope: Scope::Namespace,
        action: Action::Allow,
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![Match {
                    source_ips,
                    ..Match::default()
                }],
            }],
        }],
        dry_run: false,
    };
    let mut known = HashMap::new();
    if peer.is_some() {
        known.insert(PEER4.parse().unwrap(), Arc::<Usage>::default());
    }
    let peer = peer.map(|addresses| workload("client", addresses));
    let all = [own].into_iter().chain(peer);
    Snapshot::build(before, Vec::new(), all.map(|w| (w, Serves::new())).collect())
        .with_policies(before, vec![policy], HashMap::new())
        .with_known(known)
}

/// A world after another, and whether the connection of the peer is open after each.
async fn after_each<const N: usize>(
    worlds: [Option<&[&str]>; N],
    source: Option<&str>,
) -> ([bool; N], Vec<Arc<str>>) {
    let mut settings = settings(&Observer::new());
    let first = world(&Snapshot::default(), Some(&[PEER4, PEER6]));
    let (worlds_tx, worlds_rx) = watch::channel(Arc::new(first));
    let demands = Demands::new(DemandLimits {
        idle: Duration::from_secs(60),
        names: 10,
    });
    settings.world = worlds_rx;
    settings.demand = Demand::of(demands.clone());
    settings.own = Arc::new(Own {
        addresses: vec!["10.0.0.2".parse().unwrap()],
        ..(*settings.own).clone()
    });
    let shard = Rc::new(Shard::new(settings, Observer::new().shard(0)).unwrap());
    let live = shard.live.enter(Some(Inbound {
        source: source.map(|name| SpiffeId::new("cluster.local", "demo", name).unwrap()),
        from: SocketAddr::new(PEER4.parse().unwrap(), 4000),
        destination: "10.0.0.2:80".parse().unwrap(),
        tunnel: None,
    }));
    tokio::task::spawn_local(follow(shard.clone()));
    tokio::task::yield_now().await;
    let mut open = [false; N];
    for (peer, open) in worlds.into_iter().zip(&mut open) {
        let before = worlds_tx.borrow().clone();
        worlds_tx.send_replace(Arc::new(world(&before, peer)));
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        *open = tokio::select! {
            biased;
            _ = live.unless_cut(std::future::pending::<()>()) => false,
            () = tokio::task::yield_now() => true,
        };
    }
    (open, demands.due(Instant::now()).wanted)
}

/// The first world has a peer with both of its addresses.
#[tokio::test]
async fn a_peer_that_was_forgotten_meanwhile_is_asked_for_before_its_connection_is_judged() {
    let test = async {
        let [forgotten, again, another] = [None, Some(&[PEER4, PEER6][..]), Some(&[PEER4][..])];
        let (open, asked) = after_each([forgotten, again, another], Some("client")).await;
        assert_eq!(open, [true, true, false], "only what the registry says ends it");
        assert_eq!(asked, ["/10.0.0.1".into()]);
    };
    LocalSet::new().run_until(test).await;
}

/// Nothing that the registry could say would help them.
#[tokio::test]
async fn who_has_proven_nothing_and_who_is_another_is_not_asked_for_and_not_spared() {
    let test = async {
        let (open, asked) = after_each([None], None).await;
        assert_eq!((open, asked), ([false], Vec::new()));
        let (open, asked) = after_each([Some(&[PEER4, PEER6][..])], Some("intruder")).await;
        assert_eq!((open, asked), ([false], Vec::new()));
    };
    LocalSet::new().run_until(test).await;
}
