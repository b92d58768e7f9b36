//! Bursts, replicas, failures and objects that go while they are being answered.

use serde_json::json;

use super::*;

fn request(name: &str, version: u32) -> PodCertificateRequest {
    PodCertificateRequest::from_json(json!({
        "metadata": { "name": name, "namespace": "demo", "uid": name, "resourceVersion": version.to_string() },
    }))
}

fn settled(name: &str) -> PodCertificateRequest {
    PodCertificateRequest::from_json(json!({
        "metadata": { "name": name, "namespace": "demo", "uid": name },
        "status": { "conditions": [{ "type": "Issued", "status": "True" }] },
    }))
}

fn all(count: u32) -> Change<PodCertificateRequest> {
    Change::All((0..count).map(|n| request(&n.to_string(), 1)).collect())
}

fn drain(queue: &mut Queue, now: Instant) -> Vec<String> {
    std::iter::from_fn(|| queue.next(now).map(|request| request.uid)).collect()
}

#[test]
fn each_of_a_burst_is_given_once_and_forgotten_once_it_is_settled() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.apply(all(110));
    let mut given = drain(&mut queue, now);
    assert_eq!((given.len(), queue.len()), (110, 110));
    // A list of the same once more, while they are being answered.
    queue.apply(all(110));
    assert!(queue.next(now).is_none());
    for uid in &given {
        queue.ended(uid, Outcome::Settled, now);
    }
    given.sort_unstable();
    given.dedup();
    assert_eq!((given.len(), queue.len(), queue.wake()), (110, 0, None));
}

#[test]
fn what_another_replica_has_settled_is_not_given_any_more() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.apply(all(3));
    queue.apply(Change::Applied(settled("1")));
    queue.apply(Change::Gone(request("2", 1)));
    assert_eq!(drain(&mut queue, now), ["0"]);
    // This one was settled while it was being answered here.
    queue.apply(Change::Applied(settled("0")));
    queue.ended("0", Outcome::Changed, now);
    assert_eq!((queue.len(), queue.wake()), (0, None));
    assert!(drain(&mut queue, now + LAST_PAUSE).is_empty());
}

#[test]
fn a_failure_is_tried_again_after_a_pause_that_doubles_up_to_a_minute() {
    let (mut queue, mut now) = (Queue::default(), Instant::now());
    queue.apply(all(1));
    let mut pauses = Vec::new();
    for _ in 0..10 {
        assert_eq!(drain(&mut queue, now).len(), 1);
        queue.ended("0", Outcome::Failed, now);
        assert!(queue.next(now).is_none());
        let wake = queue.wake().unwrap();
        pauses.push((wake - now).as_millis());
        now = wake;
    }
    assert_eq!(
        pauses,
        [
            500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000
        ]
    );
}

#[test]
fn a_version_that_was_told_while_the_one_before_was_answered_is_given_at_once() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.apply(Change::Applied(request("a", 1)));
    assert!(queue.next(now).is_some());
    queue.apply(Change::Applied(request("a", 2)));
    assert!(queue.next(now).is_none(), "one at a time");
    queue.ended("a", Outcome::Changed, now);
    assert_eq!(queue.next(now), Some(request("a", 2)));
}

#[test]
fn a_list_takes_the_place_of_what_was_known_and_trouble_changes_nothing() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.apply(all(5));
    queue.apply(Change::Trouble("away".into()));
    assert_eq!(queue.len(), 5);
    queue.apply(all(2));
    assert_eq!((queue.len(), drain(&mut queue, now).len()), (2, 2));
}

#[test]
fn what_finds_no_room_is_listed_again_once_there_is_some() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.apply(all(ROOM as u32 + 1));
    assert_eq!(queue.len(), ROOM);
    assert!(!queue.is_to_be_listed_again());
    for uid in drain(&mut queue, now) {
        queue.ended(&uid, Outcome::Settled, now);
    }
    assert!(queue.is_to_be_listed_again());
    assert!(!queue.is_to_be_listed_again(), "once");
}

#[test]
fn two_replicas_begin_at_different_ends() {
    let now = Instant::now();
    let orders: HashSet<Vec<String>> = (0..8)
        .map(|_| {
            let mut queue = Queue::default();
            queue.apply(all(50));
            drain(&mut queue, now)
        })
        .collect();
    assert!(orders.len() > 1);
}
