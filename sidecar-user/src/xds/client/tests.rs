//! A client against the state of a server, with messages on their way between them. No socket.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::model::authorization::Scope;
use crate::xds::testing::{policy, service, workload};
use crate::xds::{Audience, Limits, Resource, ServerStream};

/// A server and a client, with what is on its way between them.
struct Wire {
    server: Store,
    stream: ServerStream,
    client: Client,
    held: Store,
    requests: VecDeque<DeltaRequest>,
    responses: VecDeque<DeltaResponse>,
}

impl Wire {
    fn new() -> Self {
        let mut wire = Self {
            server: Store::default(),
            stream: ServerStream::new(Audience::Everybody, Limits { names: 1000 }),
            client: Client::default(),
            held: Store::default(),
            requests: VecDeque::new(),
            responses: VecDeque::new(),
        };
        wire.connect();
        wire
    }

    /// Whatever is on its way is lost.
    fn connect(&mut self) {
        self.stream = ServerStream::new(Audience::Everybody, Limits { names: 1000 });
        self.responses.clear();
        let (requests, _) = self.client.begin(&Node::default(), &mut self.held);
        self.requests = requests.into();
    }

    fn change(&mut self, changes: Vec<Update>) {
        let touched = self.server.apply(changes);
        self.stream.touched(&touched, &self.server);
    }

    fn complete(&mut self) {
        for kind in Kind::ALL {
            let touched = self.server.complete(kind);
            self.stream.touched(&touched, &self.server);
        }
    }

    fn ask(&mut self) {
        while let Some(request) = self.client.request() {
            self.requests.push_back(request);
        }
    }

    fn serve(&mut self) {
        if let Some(request) = self.requests.pop_front() {
            self.stream.request(request, &self.server).unwrap();
        }
    }

    fn send(&mut self) -> bool {
        let response = self.stream.next(&self.server);
        let sent = response.is_some();
        self.responses.extend(response);
        sent
    }

    fn receive(&mut self) {
        if let Some(response) = self.responses.pop_front() {
            let received = self.client.response(response, &mut self.held).unwrap();
            assert_eq!(received.refused, [""; 0]);
            self.requests.push_back(received.ack);
        }
    }

    fn settle(&mut self) {
        self.ask();
        while !self.requests.is_empty() || self.send() || !self.responses.is_empty() {
            self.serve();
            self.receive();
        }
    }

    fn held(&self) -> BTreeMap<Key, Resource> {
        let all = Kind::ALL.into_iter().flat_map(|kind| self.held.of_kind(kind));
        all.map(|stored| (stored.key.clone(), stored.resource.clone()))
            .collect()
    }

    /// What the names mean that the client wants, and every policy.
    fn meant(&self) -> BTreeMap<Key, Resource> {
        let related = self.client.names().flat_map(|name| self.server.related(name));
        let policies = self.server.of_kind(Kind::Authorization);
        let meant = related.chain(policies);
        meant
            .map(|stored| (stored.key.clone(), stored.resource.clone()))
            .collect()
    }

    fn names_held(&self) -> Vec<String> {
        self.held().keys().map(ToString::to_string).collect()
    }
}

const WEB: &str = "demo/web.demo.svc.cluster.local";

#[test]
fn an_address_brings_its_service_and_whoever_stands_behind_it_and_nothing_else() {
    let mut wire = Wire::new();
    wire.change(vec![
        Update::Put(service("web", &["10.96.0.1"])),
        Update::Put(service("other", &["10.96.0.2"])),
        Update::Put(workload("web-1", "10.0.0.1", &["web"])),
        Update::Put(workload("web-2", "10.0.0.2", &["web", "other"])),
        Update::Put(workload("other-1", "10.0.0.3", &["other"])),
    ]);
    wire.complete();
    wire.settle();
    assert!(wire.held.is_empty());
    assert!(
        wire.held.is_complete(Kind::Authorization),
        "there is none, and that is known"
    );
    wire.client.want("/10.96.0.1".into());
    wire.settle();
    assert_eq!(
        wire.names_held(),
        ["cluster//Pod/demo/web-1", "cluster//Pod/demo/web-2", WEB]
    );
    assert!(wire.held.knows(Kind::Address, "/10.96.0.1"));
    wire.client.unwant("/10.96.0.1", &mut wire.held);
    assert!(!wire.held.knows(Kind::Address, "/10.96.0.1"));
    wire.settle();
    assert!(wire.held.is_empty());
}

#[test]
fn an_address_that_nobody_has_is_answered_and_brings_whoever_gets_it_later() {
    let mut wire = Wire::new();
    wire.complete();
    wire.client.want("/10.0.0.9".into());
    wire.settle();
    assert!(wire.held.knows(Kind::Address, "/10.0.0.9"));
    assert!(wire.held.is_empty());
    wire.change(vec![Update::Put(workload("late", "10.0.0.9", &[]))]);
    wire.settle();
    assert_eq!(wire.names_held(), ["cluster//Pod/demo/late"]);
}

#[test]
fn nothing_is_answered_before_the_server_has_seen_the_world() {
    let mut wire = Wire::new();
    wire.client.want("/10.0.0.1".into());
    wire.settle();
    assert!(!wire.held.knows(Kind::Address, "/10.0.0.1"));
    assert!(!wire.held.is_complete(Kind::Authorization));
    wire.change(vec![Update::Put(workload("web-1", "10.0.0.1", &[]))]);
    wire.complete();
    wire.settle();
    assert!(wire.held.knows(Kind::Address, "/10.0.0.1"));
    assert_eq!(wire.held.len(), 1);
}

/// A server that has just started knows nothing, and says nothing about it.
#[test]
fn a_server_that_starts_anew_takes_nothing_away() {
    let mut wire = Wire::new();
    wire.change(vec![
        Update::Put(service("web", &["10.96.0.1"])),
        Update::Put(workload("web-1", "10.0.0.1", &["web"])),
        Update::Put(workload("web-2", "10.0.0.2", &["web"])),
        Update::Put(policy("demo", "p", Scope::Namespace)),
    ]);
    wire.complete();
    wire.client.want("/10.96.0.1".into());
    wire.settle();
    assert_eq!(wire.held.len(), 4);
    wire.server = Store::default();
    wire.connect();
    wire.settle();
    assert_eq!(wire.held.len(), 4);
    // Meanwhile one pod and the policy have gone.
    wire.change(vec![
        Update::Put(service("web", &["10.96.0.1"])),
        Update::Put(workload("web-1", "10.0.0.1", &["web"])),
    ]);
    wire.complete();
    wire.settle();
    assert_eq!(wire.names_held(), ["cluster//Pod/demo/web-1", WEB]);
}

#[test]
fn after_a_reconnect_only_what_has_changed_is_sent() {
    let mut wire = Wire::new();
    let pods = (0..50).map(|n| Update::Put(workload(&format!("web-{n}"), &format!("10.0.0.{n}"), &["web"])));
    wire.change(
        pods.chain([Update::Put(service("web", &["10.96.0.1"]))])
            .collect(),
    );
    wire.complete();
    wire.client.want("/10.96.0.1".into());
    wire.settle();
    wire.change(vec![
        Update::Put(workload("web-7", "10.0.1.7", &["web"])),
        Update::Remove(Key::address("cluster//Pod/demo/web-8")),
    ]);
    wire.connect();
    while !wire.requests.is_empty() {
        wire.serve();
    }
    let mut sent: Vec<String> = Vec::new();
    while let Some(response) = wire.stream.next(&wire.server) {
        sent.extend(response.removed.iter().map(|name| format!("-{name}")));
        sent.extend(response.resources.iter().map(|named| named.name.clone()));
        wire.responses.push_back(response);
    }
    // The name that was asked for, under itself: somebody may wait for it.
    assert_eq!(
        sent,
        [
            "-cluster//Pod/demo/web-8",
            "cluster//Pod/demo/web-7",
            "/10.96.0.1"
        ]
    );
    wire.settle();
    assert_eq!(wire.held(), wire.meant());
}

#[test]
fn a_name_that_is_dropped_and_wanted_again_at_once_brings_all_of_it_again() {
    let mut wire = Wire::new();
    wire.change(vec![
        Update::Put(service("web", &["10.96.0.1"])),
        Update::Put(workload("web-1", "10.0.0.1", &["web"])),
    ]);
    wire.complete();
    wire.client.want("/10.96.0.1".into());
    wire.settle();
    wire.client.unwant("/10.96.0.1", &mut wire.held);
    wire.client.want("/10.96.0.1".into());
    wire.settle();
    assert_eq!(wire.held(), wire.meant());
    assert_eq!(wire.held.len(), 2);
}

#[test]
fn a_bad_resource_is_refused_alone_and_the_last_good_one_stays() {
    let mut wire = Wire::new();
    wire.change(vec![
        Update::Put(workload("web-1", "10.0.0.1", &[])),
        Update::Put(workload("web-2", "10.0.0.2", &[])),
    ]);
    wire.complete();
    wire.client.want("/10.0.0.1".into());
    wire.client.want("/10.0.0.2".into());
    wire.settle();
    let before = wire.held();
    let named = |name: &str, value: &[u8]| Named {
        name: name.to_owned(),
        version: "2".to_owned(),
        resource: Some(Any {
            type_url: Kind::Address.type_url().to_owned(),
            value: value.to_vec().into(),
        }),
        aliases: vec!["/10.0.0.22".to_owned()],
    };
    let good = message::encode(&workload("web-2", "10.0.0.22", &[]));
    let response = DeltaResponse {
        type_url: Kind::Address.type_url().to_owned(),
        nonce: "7".to_owned(),
        resources: vec![
            named("cluster//Pod/demo/web-1", b"\xff"),
            named("cluster//Pod/demo/web-2", &good),
        ],
        ..DeltaResponse::default()
    };
    // The second is a subscribed one no longer: its address has changed.
    wire.client.want("/10.0.0.22".into());
    let received = wire.client.response(response, &mut wire.held).unwrap();
    assert_eq!(
        received.refused,
        ["cluster//Pod/demo/web-1: it is no message of its type"]
    );
    assert_eq!(received.ack.response_nonce, "7");
    assert!(received.ack.error.is_some());
    let key = Key::address("cluster//Pod/demo/web-1");
    assert_eq!(
        wire.held.get(&key).map(|stored| &stored.resource),
        before.get(&key)
    );
    assert!(wire.held.related("/10.0.0.22").len() == 1);
}

/// Whatever happens in whatever order, in the end the client holds what its names mean.
#[test]
fn client_and_server_agree_in_the_end() {
    for seed in 0..1000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut wire = Wire::new();
        if random.bool() {
            wire.complete();
        }
        let mut restarts = 0;
        for _ in 0..random.usize(1..120) {
            let n = random.usize(0..6);
            match random.usize(0..16) {
                0 => wire.change(vec![Update::Put(workload(
                    &format!("w{n}"),
                    &format!("10.0.0.{}", random.usize(0..6)),
                    [&["s0", "s1"][..], &["s1"], &["s2"], &[]][random.usize(0..4)],
                ))]),
                1 => wire.change(vec![Update::Remove(Key::address(&format!(
                    "cluster//Pod/demo/w{n}"
                )))]),
                2 => {
                    let vip = format!("10.96.0.{}", random.usize(0..3));
                    let vips = match random.usize(0..3) {
                        0 => vec![],
                        1 => vec![&*vip],
                        _ => vec![&*vip, "10.0.0.1"],
                    };
                    wire.change(vec![Update::Put(service(&format!("s{}", n % 3), &vips))]);
                }
                3 => wire.change(vec![Update::Remove(Key::address(&format!(
                    "demo/s{}.demo.svc.cluster.local",
                    n % 3
                )))]),
                4 => wire.change(vec![Update::Put(policy(
                    "demo",
                    &format!("p{n}"),
                    Scope::Namespace,
                ))]),
                5 => wire.change(vec![Update::Remove(Key::authorization(&format!("demo/p{n}")))]),
                6 | 7 => {
                    wire.client.want(some_name(&mut random));
                }
                8 => {
                    wire.client.unwant(&some_name(&mut random), &mut wire.held);
                }
                9 => wire.ask(),
                10 | 11 => wire.serve(),
                12 => {
                    wire.send();
                }
                13 | 14 => wire.receive(),
                _ if random.usize(0..4) == 0 => {
                    restarts += 1;
                    wire.connect();
                }
                _ => wire.stream.lost_track(&wire.server),
            }
        }
        wire.complete();
        wire.settle();
        assert_eq!(wire.held(), wire.meant(), "seed {seed}, {restarts} reconnects");
        for name in wire.client.names() {
            assert!(wire.held.knows(Kind::Address, name), "seed {seed}: {name}");
        }
    }
}

fn some_name(random: &mut fastrand::Rng) -> Arc<str> {
    let n = random.usize(0..3);
    match random.usize(0..4) {
        0 => format!("/10.0.0.{n}"),
        1 => format!("/10.96.0.{n}"),
        2 => format!("cluster//Pod/demo/w{n}"),
        _ => format!("demo/s{n}.demo.svc.cluster.local"),
    }
    .into()
}
