//! Facts about two proxies of one pod, of which the second takes over from the first.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use sidecar_ebpf::abi::{GENERATIONS, MAX_SHARDS, map};

use super::super::install::{links, pins};
use super::super::{Config, Datapath, Error, Former, PodTarget, Steered};
use super::pod::{Pod, in_pod, steered};
use super::probe::{FAR4, FAR6, counter};
use super::upgrade::{map_ids, program_ids};

/// A proxy with one shard, which accepts and does not hold.
struct Proxy {
    datapath: Datapath,
    outbound: TcpListener,
}

impl Proxy {
    fn prepare(pod: &Pod, former: Former) -> Self {
        Self::prepare_as(&pod.config, pod, former).expect("prepare")
    }

    fn prepare_as(config: &Config, pod: &Pod, former: Former) -> Result<Self, Error> {
        let datapath = Datapath::prepare(config, PodTarget::of(config)?, pod.lease(&config.pins)?, former)?;
        let outbound = steered();
        let slots = Steered {
            outbound: Some(outbound.as_fd()),
            ..Steered::default()
        };
        datapath.session().steer(0, slots)?;
        outbound.set_nonblocking(true).expect("non-blocking");
        Ok(Self { datapath, outbound })
    }

    fn first(pod: &Pod) -> Self {
        let first = Self::prepare(pod, Former::Gone);
        first.datapath.activate().expect("activate");
        first
    }

    fn former(&self) -> Former {
        Former::Serving(self.datapath.handover().generation())
    }

    /// Whether a new connection comes to this proxy. It comes to one.
    fn is_served(&self, far: &str) -> bool {
        let _app = TcpStream::connect(far).expect("somebody accepts");
        match self.outbound.accept() {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                false
            }
        }
    }
}

/// Leaves the maps behind as a version does that lays them out otherwise.
fn of_another_version(pod: &Pod, maps: &[&str]) {
    for name in maps {
        let pin = pins::map(&pod.config.pins, name);
        fs::rename(&pin, pin.with_file_name(format!("{name}_other"))).expect("a bpffs renames");
    }
}

#[test]
fn what_is_only_prepared_changes_nothing_for_connections() {
    in_pod(|pod| {
        let first = Proxy::first(pod);
        let before = (
            map_ids(pod),
            program_ids(pod),
            pins::pinned_settings(&pod.config.pins),
        );
        let second = Proxy::prepare(pod, first.former());
        second
            .datapath
            .session()
            .set_strict(true)
            .expect("kept until it counts");
        let after = (
            map_ids(pod),
            program_ids(pod),
            pins::pinned_settings(&pod.config.pins),
        );
        assert_eq!(before, after);
        for far in [FAR4, FAR6] {
            assert!(first.is_served(far), "{far}");
        }
        drop(second);
        assert!(first.is_served(FAR4));
    });
}

#[test]
fn new_connections_come_to_the_second_proxy_at_once_and_the_first_writes_nothing_any_more() {
    in_pod(|pod| {
        let first = Proxy::first(pod);
        let second = Proxy::prepare(pod, first.former());
        first.datapath.handover().lay_down();
        let refused = first.datapath.session().set_strict(true).unwrap_err();
        assert!(matches!(refused, Error::Superseded), "{refused}");
        assert!(first.is_served(FAR4), "until the other is attached");
        second.datapath.activate().expect("activate");
        for far in [FAR4, FAR6] {
            assert!(second.is_served(far), "{far}");
        }
        let refused = first
            .datapath
            .session()
            .policy()
            .apply(&pod.config.policy)
            .unwrap_err();
        assert!(matches!(refused, Error::Superseded), "{refused}");
        second
            .datapath
            .session()
            .set_strict(true)
            .expect("it is the one that writes");
        assert_eq!(program_ids(pod).len(), 9, "none beside the others");
        assert_eq!(counter(&second.datapath, "redirected"), 3);
    });
}

#[test]
fn a_second_proxy_that_ends_half_way_leaves_the_first_as_it_was() {
    in_pod(|pod| {
        for changed in [
            &[][..],
            &[map::PENDING],
            &[map::SETTINGS],
            &[map::ORIGIN, map::ROUTES],
        ] {
            let first = Proxy::first(pod);
            let before = program_ids(pod);
            let maps = map_ids(pod);
            let policy = pins::pinned_settings(&pod.config.pins)
                .expect("settings")
                .policy_generation;
            of_another_version(pod, changed);
            let second = Proxy::prepare(pod, first.former());
            first.datapath.handover().lay_down();
            second.datapath.activate().expect("activate");
            assert!(second.is_served(FAR4));
            drop(second);
            first.datapath.handover().restore().expect("restore");
            assert_eq!(program_ids(pod), before, "{changed:?}");
            assert_eq!(map_ids(pod), maps, "{changed:?}");
            for far in [FAR4, FAR6] {
                assert!(first.is_served(far), "{far} {changed:?}");
            }
            first
                .datapath
                .session()
                .set_strict(true)
                .expect("it writes again");
            first
                .datapath
                .session()
                .set_strict(false)
                .expect("it writes again");
            let now = pins::pinned_settings(&pod.config.pins).expect("settings");
            assert_ne!(now.policy_generation, policy, "its policy is written again");
        }
    });
}

#[test]
fn programs_of_two_versions_stand_beside_each_other_until_the_first_waits_for_nobody() {
    in_pod(|pod| {
        let mut first = Proxy::first(pod);
        of_another_version(pod, &[map::PENDING]);
        let second = Proxy::prepare(pod, first.former());
        assert!(second.datapath.is_apart());
        second.datapath.activate().expect("activate");
        for far in [FAR4, FAR6] {
            assert!(second.is_served(far), "{far}");
        }
        let aside = program_ids(pod).len() - 9;
        assert_eq!(aside, 7, "all but the two that redirect");
        let number = first.datapath.handover().generation();
        assert!(!second.datapath.handover().forget_formers().expect("look"));
        assert!(links::is_aside(&pod.config.pins, number));
        drop(first.datapath.generation());
        assert!(second.datapath.handover().forget_formers().expect("look"));
        assert_eq!(program_ids(pod).len(), 9);
        assert!(second.is_served(FAR4));
    });
}

#[test]
fn each_proxy_has_slots_of_its_own_and_there_is_room_for_so_many() {
    in_pod(|pod| {
        let mut proxies = vec![Proxy::first(pod)];
        for _ in 2..GENERATIONS {
            let next = Proxy::prepare(pod, proxies.last().expect("one").former());
            next.datapath.activate().expect("activate");
            proxies.push(next);
        }
        let last = proxies.last().expect("one").former();
        let fourth = Proxy::prepare_as(&pod.config, pod, last).expect("one has died without this");
        fourth.datapath.activate().expect("activate");
        let refused = Proxy::prepare_as(&pod.config, pod, fourth.former())
            .map(drop)
            .unwrap_err();
        assert!(matches!(refused, Error::NoGeneration { .. }), "{refused}");
        drop(proxies.remove(0).datapath.generation());
        let fifth = Proxy::prepare(pod, fourth.former());
        fifth.datapath.activate().expect("activate");
        assert!(fifth.is_served(FAR4));
        let settings = pins::pinned_settings(&pod.config.pins).expect("settings");
        let number = usize::from(settings.first_shard) / MAX_SHARDS;
        assert_eq!(number, fifth.datapath.handover().generation());
    });
}
