//! The memory as its role sees it. Time is an argument; randomness has a seed that a failure names.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use allocation_counter::measure;

use super::*;
use crate::model::{Cause, Decided, Direction, Failure, Flow, Outcome, Party, Routed, Transport};
use crate::observe::WhyReport;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn report(id: u64, closed: SystemTime, standing: &'static str) -> FlowReport {
    let mut flow = Flow::new(
        Direction::Outbound,
        "10.0.0.1:4000".parse().unwrap(),
        closed - Duration::from_secs(1),
    );
    flow.id = id;
    flow.original_dst = Some("10.96.0.1:80".parse().unwrap());
    flow.decided(flow.opened, Decided::Routed(Routed::Unknown));
    let outcome = Outcome::new(Party::Upstream, Cause::ConnectionRefused);
    flow.decided(
        flow.opened + Duration::from_millis(3),
        Decided::Tried {
            endpoint: "10.96.0.1:80".parse().unwrap(),
            transport: Transport::Plain,
            failure: Some(Box::new(Failure::new(outcome, "cannot connect: refused"))),
        },
    );
    flow.closed = Some((closed, outcome));
    let mut report = FlowReport::new(&flow, closed);
    report.standing = standing.into();
    report
}

fn memory(bytes: usize) -> Memory {
    let age = Duration::from_secs(3600);
    Memory::new(Limits { bytes, age }, at(0))
}

fn ask(query: &str, now: SystemTime) -> Question {
    Question::parse(query, now).unwrap()
}

fn asked_of(memory: &Memory, question: &Question) -> (Vec<FlowReport>, bool) {
    newest(&memory.found(question), question)
}

fn explained(memory: &Memory, question: &Question) -> Vec<WhyReport> {
    asked_of(memory, question)
        .0
        .iter()
        .map(WhyReport::of_flow)
        .collect()
}

fn ids(flows: &[FlowReport]) -> Vec<u64> {
    flows.iter().map(|flow| flow.id).collect()
}

/// How many flows of each pod, of clients that proved something.
fn held(memory: &Memory) -> BTreeMap<String, usize> {
    memory
        .pods()
        .into_iter()
        .map(|pod| (pod.pod, pod.flows))
        .collect()
}

/// Random pods, kinds, lengths and times, and after each step what has to hold.
#[test]
fn every_bound_holds_after_every_step() {
    const LIMIT: usize = 64 << 10;
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut memory = memory(LIMIT);
        let mut now = at(0);
        let pods = random.usize(1..12);
        for id in 0..400 {
            now += Duration::from_secs(random.u64(0..60));
            let standing = ["own", "proven", "plaintext", "stranger"][random.usize(..4)];
            let mut flow = report(id, now - Duration::from_secs(random.u64(0..5)), standing);
            flow.service = Some("x".repeat(random.usize(..600)));
            // The first pod tells more than all others together.
            let pod = random.usize(..pods) * usize::from(random.bool());
            memory.closed(&format!("demo/pod-{pod}"), 0, flow, now);
            if random.u8(..20) == 0 {
                memory.expire(now);
                let oldest = kept::millis(now) - 3_600_000;
                let all = memory.pods.iter().flat_map(Pod::records);
                assert!(all.into_iter().all(|record| record.at >= oldest), "seed {seed}");
            }
            for (kind, share) in SHARES.iter().enumerate() {
                let of = |pod: &Pod| pod.kinds[kind].bytes(&pod.name);
                let sum: usize = memory.pods.iter().map(of).sum();
                assert_eq!(sum, memory.bytes[kind], "seed {seed}, flow {id}: what is counted");
                assert!(
                    sum <= LIMIT / 8 * share,
                    "seed {seed}, flow {id}: {sum} bytes of kind {kind}"
                );
            }
            assert!(memory.pods.is_sorted_by(|a, b| a.name < b.name), "seed {seed}");
        }
    }
}

#[test]
fn a_noisy_pod_pushes_out_none_but_its_own_flows() {
    let mut memory = memory(256 << 10);
    for id in 0..20 {
        memory.closed("demo/quiet", 0, report(id, at(id), "own"), at(id));
    }
    for id in 0..5_000 {
        memory.closed("demo/noisy", 0, report(id, at(100 + id), "own"), at(100 + id));
    }
    let held = held(&memory);
    assert_eq!(held["demo/quiet"], 20);
    assert!((50..5_000).contains(&held["demo/noisy"]), "{held:?}");
    let (newest, truncated) = asked_of(&memory, &ask("pod=demo/noisy&limit=2", at(9_000)));
    assert_eq!((ids(&newest), truncated), (vec![4_999, 4_998], true));
}

#[test]
fn strangers_and_plaintext_push_out_none_who_have_proved_who_they_are() {
    let mut memory = memory(256 << 10);
    for id in 0..50 {
        memory.closed("demo/web", 0, report(id, at(id), "proven"), at(id));
    }
    for id in 50..3_000 {
        let standing = if id % 2 == 0 { "stranger" } else { "plaintext" };
        memory.closed("demo/web", 0, report(id, at(id), standing), at(id));
    }
    let now = at(3_000);
    assert_eq!(asked_of(&memory, &ask("standing=proven", now)).0.len(), 50);
    for standing in ["stranger", "plaintext"] {
        let kept = asked_of(&memory, &ask(&format!("standing={standing}"), now))
            .0
            .len();
        assert!((10..100).contains(&kept), "{kept} of {standing}");
    }
}

/// What is counted is what the allocator gave, and not more than a third above it.
#[test]
fn bytes_are_those_of_the_allocator() {
    let mut memory = memory(1 << 20);
    let given = measure(|| {
        for id in 0..3_000 {
            let pod = format!("demo/pod-{}", id % 7);
            let standing = ["own", "plaintext", "stranger"][id as usize % 3];
            memory.closed(&pod, 0, report(id, at(id), standing), at(id));
        }
    });
    let given = given.bytes_current as usize;
    let counted = memory.bytes();
    assert!(
        counted >= given && counted <= given / 3 * 4,
        "{counted} counted, {given} given"
    );
    assert!(given <= 1 << 20, "{given}");
    let freed = measure(|| memory.expire(at(100_000)));
    assert!(
        -freed.bytes_current >= given as i64 - 4096,
        "{} of {given} freed",
        -freed.bytes_current
    );
    assert_eq!(memory.bytes(), 0);
}

#[test]
fn a_question_by_pod_time_and_filter_is_answered_newest_first() {
    let mut memory = memory(1 << 20);
    for (id, pod) in [(1, "a/x"), (2, "b/y"), (3, "a/x"), (4, "b/y")] {
        memory.closed(pod, 0, report(id, at(id * 60), "own"), at(id * 60));
    }
    let now = at(300);
    let asked = |query: &str| ids(&asked_of(&memory, &ask(query, now)).0);
    assert_eq!(asked(""), [4, 3, 2, 1]);
    assert_eq!(asked("pod=a/x"), [3, 1]);
    assert_eq!(asked("since=2m"), [4, 3]);
    assert_eq!(asked("since=4m&until=3m"), [2, 1]);
    assert_eq!(asked("until=1970-01-12T13%3A48%3A40Z"), [2, 1]);
    assert_eq!(asked("failed&destination=10.96.0.1:80&limit=1"), [4]);
    assert_eq!(asked("failed=false"), [0; 0]);
    assert_eq!(
        asked_of(&memory, &ask("pod=a/x", now)).0[0].pod.as_deref(),
        Some("a/x")
    );
    for (query, part) in [
        ("since=soon", "how long ago"),
        ("after=7", "a cursor"),
        ("colour=red", "watch, pod, namespace, since, until, after"),
        ("state=half", "open or closed"),
    ] {
        let error = Question::parse(query, now).unwrap_err();
        assert!(error.contains(part), "{query}: {error}");
    }
}

#[test]
fn ten_minutes_later_every_decision_is_told_in_order() {
    let mut memory = memory(1 << 20);
    memory.closed("demo/client", 0, report(1, at(0), "own"), at(0));
    memory.expire(at(600));
    let why = explained(
        &memory,
        &ask("pod=demo/client&destination=10.96.0.1:80&failed", at(600)),
    );
    assert_eq!(why.len(), 1);
    assert!(
        why[0]
            .summary
            .starts_with("demo/client: 10.0.0.1:4000 to 10.96.0.1:80 failed"),
        "{:?}",
        why[0]
    );
    let told = why[0].reasons.join("\n");
    let (route, dial) = (
        told.find("does not know it"),
        told.find("connection_refused by upstream"),
    );
    assert!(route.is_some() && route < dial, "{told}");
    memory.expire(at(3_601));
    assert!(explained(&memory, &ask("", at(3_601))).is_empty(), "too old");
}

#[test]
fn who_follows_is_told_what_was_lost_in_between() {
    let mut memory = memory(256 << 10);
    let now = at(0);
    let start = memory.cursor();
    for id in 0..5 {
        memory.closed("demo/a", 0, report(id, now, "own"), now);
    }
    let first = memory.follow(&ask(&format!("after={start}&limit=2"), now));
    assert_eq!((ids(&first.flows), first.lost), (vec![0, 1], 0));
    let rest = memory.follow(&ask(&format!("after={}", first.cursor), now));
    assert_eq!((ids(&rest.flows), rest.lost), (vec![2, 3, 4], 0));
    assert_eq!(
        memory.follow(&ask(&format!("after={}", rest.cursor), now)).cursor,
        rest.cursor
    );

    // A proxy says that it left seven out; later so many come that the oldest of them have gone.
    memory.lost(7);
    for id in 0..2_000 {
        memory.closed("demo/a", 0, report(id, now, "own"), now);
    }
    let late = memory.follow(&ask(&format!("after={}&limit=10000", rest.cursor), now));
    assert_eq!(late.flows.len() as u64 + late.lost, 2_007);
    assert_eq!(late.flows.last().unwrap().id, 1_999);

    let other = memory.follow(&ask("after=1.5&limit=1", now));
    assert!(
        other.restarted && other.lost == 0 && other.flows.len() == 1,
        "{other:?}"
    );
}

#[test]
fn what_a_proxy_tells_again_is_kept_once() {
    let mut memory = memory(1 << 20);
    let now = at(0);
    memory.closed("demo/a", 1, report(1, now, "own"), now);
    memory.closed("demo/a", 1, report(2, now, "stranger"), now);
    let told = |ids: [u64; 3]| ids.map(|id| report(id, now, "own")).to_vec();
    memory.caught_up("demo/a", 1, told([1, 2, 3]), now);
    assert_eq!(held(&memory)["demo/a"], 3);
    // Its successor counts from 1 again.
    memory.caught_up("demo/a", 2, told([1, 2, 3]), now);
    assert_eq!(held(&memory)["demo/a"], 6);
}

#[test]
fn a_flow_is_of_the_pod_whose_sidecar_tells_of_it_whatever_that_says() {
    let mut memory = memory(1 << 20);
    let mut flow = report(1, at(0), "own");
    flow.pod = Some("demo/other".into());
    memory.closed("demo/a", 1, flow, at(0));
    let (flows, _) = asked_of(&memory, &ask("", at(0)));
    assert_eq!(flows[0].pod.as_deref(), Some("demo/a"));
    assert!(asked_of(&memory, &ask("pod=demo/other", at(0))).0.is_empty());
}
