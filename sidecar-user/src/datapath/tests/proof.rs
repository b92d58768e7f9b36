//! Facts about what is refused before anything is attached, and about the proof that what was attached works here.

use std::env;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, setns};
use nix::unistd::getppid;

use sidecar_ebpf::abi::program;

use super::super::install::pins;
use super::super::policy::parse;
use super::super::{Config, Datapath, Error, Family, Lost, PodTarget, Proof, Unseen, detach, sys};
use super::pod::{Elsewhere, Pod, in_pod};
use super::probe::{canonical, counter, listener, original_dst, pending, presented};
use crate::model::Direction;

/// In both families, which these pods have.
fn look(proof: &Proof) -> Result<(), Unseen> {
    Family::ALL
        .into_iter()
        .try_for_each(|family| proof.look(family).map(|there| assert!(there, "{family:?}")))
}

#[test]
fn the_programs_are_seen_from_inside_of_the_cgroup_and_nothing_is_left() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let proof = datapath.session().proof();
        let app = listener(socket2::Domain::IPV6);
        for _ in 0..100 {
            look(&proof).expect("seen");
        }
        assert_eq!(presented(pod), 0);
        for counted in [
            "presented",
            "present_failed",
            "claimed",
            "unclaimed",
            "redirected",
            "steered",
        ] {
            assert_eq!(counter(&datapath, counted), 0, "{counted} is of applications");
        }
        app.set_nonblocking(true).expect("nonblocking");
        app.accept().expect_err("no port of an application was dialled");
        let lingering = fs::read_to_string("/proc/thread-self/net/tcp").expect("sockets");
        assert!(!lingering.contains(" 06 "), "in TIME_WAIT: {lingering}");
    });
}

#[test]
fn a_proxy_outside_of_the_cgroup_is_told_which_one_it_is_in() {
    in_pod(|pod| {
        let elsewhere = Elsewhere::new(pod);
        let datapath = pod.attach_as(&elsewhere.0, None).expect("attach");
        let unseen = look(&datapath.session().proof()).expect_err("outside");
        let Unseen::Outside { cgroup, own, .. } = &unseen else {
            panic!("{unseen}");
        };
        assert_eq!(*cgroup, elsewhere.0.cgroup);
        let pods = pod
            .config
            .cgroup
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        assert!(own.ends_with(pods), "{own}");
        assert!(unseen.to_string().contains("interception.cgroup"), "{unseen}");
        assert!(
            !unseen.reason().contains('/'),
            "no path for strangers: {}",
            unseen.reason()
        );
        drop(datapath);
        detach(&elsewhere.0.pins, true).expect("detach");
    });
}

#[test]
fn a_program_that_was_taken_off_is_missed() {
    in_pod(|pod| {
        for (hook, missed) in [
            (program::CONNECT4, "connect"),
            (program::CONNECT6, "connect"),
            (program::SOCKOPS, "accept"),
            (program::GETPEERNAME4, "accept"),
            (program::GETPEERNAME6, "accept"),
            (program::GETSOCKOPT, "getsockopt"),
        ] {
            let datapath = pod.attach(None);
            look(&datapath.session().proof()).expect("all are attached");
            let link = sys::open_pin(&pins::link(&pod.config.pins, hook)).expect("a link");
            sys::link_detach(link.as_fd()).expect("detach");
            match look(&datapath.session().proof()) {
                Err(Unseen::Outside { what, .. }) => assert_eq!(what, missed, "without {hook}"),
                other => panic!("without {hook}: {other:?}"),
            }
        }
    });
}

#[test]
fn the_root_of_all_cgroups_is_refused() {
    in_pod(|pod| {
        let root = pod.config.cgroup.parent().expect("the mount");
        let config = Config {
            cgroup: root.into(),
            // In any case nothing is attached to it.
            pins: env::temp_dir().join("outrigger-not-bpffs"),
            ..pod.config.clone()
        };
        let error = attach_nowhere(pod, &config);
        assert!(
            matches!(&error, Error::HostCgroup { path, .. } if path == root),
            "{error}"
        );
        assert!(
            error.to_string().contains("interception.allowWholeHost"),
            "{error}"
        );
        let meant = Config {
            allow_whole_host: true,
            ..config
        };
        let error = attach_nowhere(pod, &meant);
        assert!(matches!(error, Error::NotBpffs { .. }), "{error}");
    });
}

#[test]
fn the_network_namespace_of_the_host_is_refused() {
    in_pod(|pod| {
        // The one that the tests were started in.
        let outside = File::open(format!("/proc/{}/ns/net", getppid())).expect("a namespace");
        setns(outside, CloneFlags::CLONE_NEWNET).expect("the host's");
        let config = Config {
            // Whatever that namespace is, nothing is attached to it.
            pins: env::temp_dir().join("outrigger-not-bpffs"),
            ..pod.config.clone()
        };
        let error = attach_nowhere(pod, &config);
        let pids = File::open("/proc/self/ns/pid").and_then(|file| file.metadata());
        // In a container nobody has a way to the host's, so there is nothing to refuse.
        let in_container = pids.expect("a namespace").ino() != 0xefff_fffc;
        let refused = matches!(error, Error::HostNetwork);
        assert!(refused || in_container, "{error}");
        assert!(
            !refused || error.to_string().contains("interception.allowWholeHost"),
            "{error}"
        );
        let meant = Config {
            allow_whole_host: true,
            ..config
        };
        let error = attach_nowhere(pod, &meant);
        assert!(matches!(error, Error::NotBpffs { .. }), "{error}");
    });
}

/// Why a configuration is refused whose pins are not on a bpffs, as the holder of the pod's own lease.
fn attach_nowhere(pod: &Pod, config: &Config) -> Error {
    let lease = pod.lease(&pod.config.pins).expect("nobody else has it");
    let attached = PodTarget::of(config).and_then(|pod| Datapath::attach(config, pod, lease));
    attached.map(drop).unwrap_err()
}

/// Where a nonce arrives, if it does. The listener's owner is this test.
fn arrives(proof: &Proof, nonce: SocketAddr, at: &TcpListener, direction: Direction) -> Result<bool, Lost> {
    let _dialled = proof.dial(nonce, direction)?;
    let (accepted, _) = at.accept().expect("accept");
    Ok(original_dst(&accepted).map(canonical) == Some(nonce))
}

#[test]
fn a_nonce_arrives_at_the_listener_whatever_the_policy_and_is_not_counted() {
    in_pod(|pod| {
        let (inbound, outbound) = (pod.inbound(), pod.outbound());
        let left_alone = "outbound: [{action: leave}]\ninbound: [{action: leave}]";
        let config = Config {
            policy: parse(left_alone).expect("a policy"),
            ..pod.config.clone()
        };
        let datapath = pod.attach_as(&config, Some(&inbound)).expect("attach");
        let proof = datapath.session().proof();
        for strict in [false, true] {
            datapath.session().set_strict(strict).expect("mode");
            datapath.session().set_hold(strict).expect("held or not");
            for family in Family::ALL {
                for (at, direction) in [(&*outbound, Direction::Outbound), (&inbound, Direction::Inbound)] {
                    let arrived = arrives(&proof, family.nonce(), at, direction);
                    assert!(
                        matches!(arrived, Ok(true)),
                        "{family:?} {direction:?}: {arrived:?}"
                    );
                }
            }
        }
        let counted = datapath.session().counters();
        assert!(counted.iter().all(|(_, count)| *count == 0), "{counted:?}");
        assert_eq!(pending(pod), 0);
    });
}

#[test]
fn a_nonce_does_not_arrive_without_the_programs() {
    in_pod(|pod| {
        let (inbound, outbound) = (pod.inbound(), pod.outbound());
        let lost = |hook: &'static str, family: Family, direction| {
            let datapath = pod.attach(Some(&inbound));
            let link = sys::open_pin(&pins::link(&pod.config.pins, hook)).expect("a link");
            sys::link_detach(link.as_fd()).expect("detach");
            datapath
                .session()
                .proof()
                .dial(family.nonce(), direction)
                .is_err()
        };
        for (hook, family, direction) in [
            (program::CONNECT4, Family::V4, Direction::Outbound),
            (program::CONNECT4, Family::V4, Direction::Inbound),
            (program::CONNECT6, Family::V6, Direction::Outbound),
            (program::CONNECT6, Family::V6, Direction::Inbound),
            (program::SK_LOOKUP, Family::V4, Direction::Inbound),
            (program::SK_LOOKUP, Family::V6, Direction::Inbound),
            (program::SK_LOOKUP, Family::V6, Direction::Outbound),
        ] {
            assert!(
                lost(hook, family, direction),
                "without {hook} by {family:?}, {direction:?}"
            );
        }
        for at in [&*outbound, &inbound] {
            at.set_nonblocking(true).expect("nonblocking");
            at.accept().expect_err("nobody came");
        }
    });
}
