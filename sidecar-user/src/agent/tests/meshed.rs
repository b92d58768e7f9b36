//! Every order of what cgroups show and what the API server tells of one pod.

use crate::agent::meshed::{Effect, Meshed};
use crate::agent::refusal::Refusal;
use crate::kubernetes::Pod;

/// What has become of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct World {
    is_served: bool,
    is_pinned: bool,
    learnt: Option<Pod>,
    refused: Vec<Refusal>,
    asked: usize,
}

impl World {
    fn take(&mut self, effects: Vec<Effect<u64>>) {
        for effect in effects {
            match effect {
                Effect::Serve(_) => (self.is_served, self.is_pinned) = (true, true),
                Effect::End(_) => self.is_served = false,
                Effect::Remove(_) => {
                    assert!(!self.is_served, "what is served is not removed");
                    self.is_pinned = false;
                }
                Effect::Ask(_) => self.asked += 1,
                Effect::Learn(_, pod) => self.learnt = Some((*pod).clone()),
                Effect::Refuse(_, why) => self.refused.push(why),
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Populated,
    Emptied,
    Gone,
    Applied,
    /// With the id of its sidecar.
    Changed,
    Relisted,
    Deleted,
}

const CGROUP: [Step; 4] = [Step::Populated, Step::Emptied, Step::Populated, Step::Gone];
const WATCH: [Step; 4] = [Step::Applied, Step::Changed, Step::Relisted, Step::Deleted];

/// All orders in which both can be told, each in its own order.
fn interleaved(a: &[Step], b: &[Step]) -> Vec<Vec<Step>> {
    let with =
        |first: Step, rest: Vec<Vec<Step>>| rest.into_iter().map(move |rest| [vec![first], rest].concat());
    match (a.split_first(), b.split_first()) {
        (None, _) => vec![b.to_vec()],
        (_, None) => vec![a.to_vec()],
        (Some((x, after_x)), Some((y, after_y))) => {
            let first = with(*x, interleaved(after_x, b));
            first.chain(with(*y, interleaved(a, after_y))).collect()
        }
    }
}

fn pod(is_meshed: bool) -> Pod {
    Pod {
        name: "web".into(),
        uid: "u".into(),
        is_meshed,
        ..Pod::default()
    }
}

fn step(table: &mut Meshed<u64>, step: Step, pod: &Pod) -> Vec<Effect<u64>> {
    let changed = Pod {
        sidecar: Some("c1".into()),
        ..pod.clone()
    };
    match step {
        Step::Populated => table.populated("u", 1),
        Step::Emptied => table.emptied("u"),
        Step::Gone => table.gone("u"),
        Step::Applied => table.applied(pod.clone()),
        Step::Changed => table.applied(changed),
        Step::Relisted => table.all(vec![changed]),
        Step::Deleted => {
            table.deleted(&changed);
            Vec::new()
        }
    }
}

fn listed(installed: &[&str]) -> Meshed<u64> {
    let mut table = Meshed::new(installed.iter().map(|uid| (*uid).to_owned()));
    assert_eq!(table.all(Vec::new()), []);
    table
}

#[test]
fn a_meshed_pod_is_served_from_the_moment_that_both_are_known_until_its_cgroup_is_empty() {
    let pod = pod(true);
    let orders = interleaved(&CGROUP, &WATCH);
    assert_eq!(orders.len(), 70);
    for order in orders {
        let (mut table, mut world) = (listed(&[]), World::default());
        let (mut is_populated, mut is_known) = (false, false);
        for (at, now) in order.iter().enumerate() {
            world.take(step(&mut table, *now, &pod));
            match now {
                Step::Populated => is_populated = true,
                Step::Emptied | Step::Gone => is_populated = false,
                Step::Deleted if order[..at].iter().all(|before| !CGROUP.contains(before)) => {
                    is_known = false
                }
                Step::Deleted => {}
                _ => is_known = true,
            }
            if *now == Step::Gone {
                assert!(!world.is_pinned, "{order:?} at {at}");
            }
            assert_eq!(world.is_served, is_populated && is_known, "{order:?} at {at}");
        }
        assert!(world.asked <= 1, "{order:?}");
        assert_eq!(table.len(), 0, "nothing is remembered: {order:?}");
    }
}

#[test]
fn a_pod_that_is_not_meshed_or_refused_is_never_touched() {
    let refused = Pod {
        is_host_network: true,
        ..pod(true)
    };
    for (pod, told) in [(pod(false), vec![]), (refused, vec![Refusal::HostNetwork])] {
        for order in interleaved(&CGROUP, &WATCH) {
            let (mut table, mut world) = (listed(&[]), World::default());
            for now in &order {
                let effects = step(&mut table, *now, &pod);
                let touches = |effect: &Effect<u64>| {
                    matches!(effect, Effect::Serve(_) | Effect::End(_) | Effect::Remove(_))
                };
                assert!(!effects.iter().any(touches), "{order:?}: {effects:?}");
                world.take(effects);
            }
            assert_eq!(world.refused, told, "once: {order:?}");
            assert_eq!(table.len(), 0, "{order:?}");
        }
    }
}

#[test]
fn a_cgroup_that_nobody_knows_is_asked_for_once_and_waits() {
    let mut table = Meshed::new([]);
    assert_eq!(table.populated("u", 1), [], "the first list is on its way");
    assert_eq!(table.waiting(), 1);
    table.all(Vec::new());
    let ask = [Effect::Ask("u".into())];
    assert_eq!(table.populated("u", 1), ask);
    assert_eq!(table.populated("u", 1), [], "asked for");
    assert!(table.is_unknown("u"));
    let effects = table.applied(pod(true));
    assert!(effects.contains(&Effect::Serve(1)));
    assert!(!table.is_unknown("u"));
    assert_eq!(table.waiting(), 0);
}

#[test]
fn what_an_agent_before_has_installed_is_served_without_the_api_server_and_left_where_it_says_that_it_is_not_meshed()
 {
    let mut table = Meshed::new(["u".to_owned(), "v".to_owned()]);
    assert_eq!(table.populated("u", 1), [Effect::Serve(1)]);
    assert_eq!(table.populated("w", 3), []);
    // It has no such pod, and its containers still run.
    table.all(Vec::new());
    assert_eq!(table.populated("u", 1), [Effect::Serve(1)]);
    assert_eq!(table.populated("v", 2), [Effect::Serve(2)]);
    let effects = table.applied(Pod {
        uid: "v".into(),
        ..pod(false)
    });
    assert_eq!(effects[1..], [Effect::End(2), Effect::Remove("v".into())]);
    assert_eq!(table.gone("u"), [Effect::End(1), Effect::Remove("u".into())]);
}

#[test]
fn a_pod_of_the_same_name_that_is_made_again_is_another_one() {
    let (mut table, mut world) = (listed(&[]), World::default());
    world.take(table.applied(pod(true)));
    world.take(table.populated("u", 1));
    assert!(world.is_served);
    let again = Pod {
        uid: "v".into(),
        ..pod(false)
    };
    world.take(table.applied(again.clone()));
    table.deleted(&pod(true));
    assert_eq!(table.populated("v", 2), []);
    assert!(world.is_served, "until its cgroup is gone");
    world.take(table.gone("u"));
    assert!(!world.is_pinned);
    table.deleted(&again);
    table.gone("v");
    assert_eq!(table.len(), 0);
}

/// Deleted while the watch was away, so that nothing but its absence tells of it.
#[test]
fn what_a_list_lacks_is_forgotten_once_its_cgroup_is_gone_as_if_it_had_been_told() {
    let (mut table, mut world) = (listed(&[]), World::default());
    world.take(table.applied(pod(true)));
    table.applied(Pod {
        uid: "never-started".into(),
        ..pod(true)
    });
    world.take(table.populated("u", 1));
    assert_eq!(table.all(Vec::new()), []);
    assert!(world.is_served, "its containers run");
    assert_eq!(table.len(), 1, "of the other one there is nothing left");
    world.take(table.gone("u"));
    assert!(!world.is_pinned);
    assert_eq!(table.len(), 0);
}

#[test]
fn a_static_pod_is_known_by_its_hash_and_refused() {
    let mirror = Pod {
        static_hash: Some("hash".into()),
        ..pod(true)
    };
    let mut table = listed(&[]);
    assert_eq!(table.populated("hash", 1), [Effect::Ask("hash".into())]);
    let effects = table.applied(mirror);
    assert!(matches!(
        effects[..],
        [Effect::Learn(..), Effect::Refuse(_, Refusal::Static)]
    ));
    assert_eq!(table.populated("hash", 1), []);
}
