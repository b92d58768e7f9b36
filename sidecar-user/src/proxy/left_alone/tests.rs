//! What becomes of the flows, without a kernel.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::model::flow::Bytes;
use crate::model::{Service, ServiceName, Transport};
use crate::observe::Observer;

const EOF: Outcome = Outcome::new(Party::Client, Cause::Eof);

fn id() -> SpiffeId {
    SpiffeId::new("td.test", "demo", "client").unwrap()
}

fn table() -> LeftAlone {
    LeftAlone::new(id(), watch::channel(Arc::default()).1, Observer::new().shard(0))
}

fn flow(direction: Direction, port: u16) -> (Flow, Arc<Bytes>) {
    let mut flow = Flow::new(direction, ([10, 0, 0, 1], port).into(), SystemTime::now());
    flow.original_dst = Some(([10, 0, 0, 2], 80).into());
    flow.chosen_dst = flow.original_dst;
    flow.transport = Transport::LeftAlone;
    let bytes = flow.bytes.clone();
    (flow, bytes)
}

fn facts(acked: u64, received: u64) -> Option<TcpFacts> {
    Some(TcpFacts {
        bytes_acked: acked,
        bytes_received: received,
        ..TcpFacts::default()
    })
}

#[test]
fn only_those_that_last_are_asked_about_and_by_the_pod_s_end_first() {
    let (table, start) = (table(), Instant::now());
    table.event(LeftAloneEvent::Opened(flow(Direction::Outbound, 1).0, 7), start);
    let later = start + Duration::from_secs(1);
    table.event(LeftAloneEvent::Opened(flow(Direction::Inbound, 2).0, 0), later);
    assert_eq!(table.due(later), []);
    let due = table.due(start + EVERY);
    let [(ends, 7)] = due[..] else { panic!("{due:?}") };
    assert_eq!((ends.own.port(), ends.other.port()), (1, 80));
    let ports: Vec<_> = table
        .due(later + EVERY)
        .iter()
        .map(|(ends, _)| ends.own.port())
        .collect();
    assert!(ports.contains(&1) && ports.contains(&80), "{ports:?}");
}

#[test]
fn bytes_are_what_the_kernel_said_last_and_at_the_end_and_none_counts_twice() {
    for (direction, before, after) in [
        (Direction::Outbound, (30, 20), (90, 100)),
        (Direction::Inbound, (20, 30), (90, 100)),
    ] {
        let (table, (flow, bytes)) = (table(), flow(direction, 1));
        let known = ends(&flow).unwrap();
        table.event(LeftAloneEvent::Opened(flow, 0), Instant::now());
        for _ in 0..2 {
            table.read(known, facts(30, 20));
            assert_eq!((bytes.sent(), bytes.received()), before);
        }
        let (end, moved) = self::flow(direction, 1);
        moved.add_sent(after.0);
        moved.add_received(after.1);
        table.event(LeftAloneEvent::Ended(end, EOF), Instant::now());
        assert_eq!((bytes.sent(), bytes.received()), after);
        assert!(table.open.borrow().is_empty());
    }
}

#[test]
fn one_whose_end_was_not_told_ends_when_it_is_missing_twice_or_its_ends_are_used_again() {
    let (table, now) = (table(), Instant::now());
    let opened = || table.event(LeftAloneEvent::Opened(flow(Direction::Outbound, 1).0, 0), now);
    opened();
    let known = ends(&flow(Direction::Outbound, 1).0).unwrap();
    table.read(known, None);
    table.read(known, facts(1, 1));
    table.read(known, None);
    assert_eq!(table.open.borrow().len(), 1, "it was there in between");
    table.read(known, None);
    assert!(table.open.borrow().is_empty());

    opened();
    table.read(known, facts(5, 5));
    opened();
    let (_, bytes) = table
        .open
        .borrow()
        .get(&known)
        .map(|entry| ((), entry.flow.bytes()))
        .unwrap();
    assert_eq!(bytes.sent(), 0, "another connection");
}

#[test]
fn the_service_at_the_address_that_was_dialled_is_named_and_of_inbound_ones_none_is() {
    let name = ServiceName {
        namespace: "demo".into(),
        hostname: "web.demo.svc.cluster.local".into(),
    };
    let service = Service {
        name: name.clone(),
        vips: vec![[10, 0, 0, 2].into()],
        ports: [(80, 8080)].into(),
        ..Service::default()
    };
    let world = Snapshot::build(&Snapshot::default(), vec![service], Vec::new());
    let (_changes, world) = watch::channel(Arc::new(world));
    let table = LeftAlone::new(id(), world, Observer::new().shard(0));
    for (direction, wanted) in [(Direction::Outbound, Some(name)), (Direction::Inbound, None)] {
        let named = table.named(flow(direction, 1).0);
        assert_eq!(named.service, wanted);
    }
}

#[test]
fn there_are_no_more_open_ones_than_may_be() {
    let (table, now) = (table(), Instant::now());
    for port in 0..=MOST as u16 {
        let (flow, _) = flow(Direction::Outbound, port);
        table.event(LeftAloneEvent::Opened(flow, 0), now);
    }
    assert_eq!(table.open.borrow().len(), MOST);
    let (last, _) = flow(Direction::Outbound, MOST as u16);
    table.event(LeftAloneEvent::Ended(last, EOF), now);
    assert_eq!(
        table.open.borrow().len(),
        MOST,
        "it had none, and has a flow now all the same"
    );
}
