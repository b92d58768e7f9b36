//! Facts about SYNs that wait for their upstream.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use sidecar_ebpf::abi::{PENDING_ENTRIES, Pending, Tuple, map};
use socket2::{Domain, Socket, Type};
use tokio::runtime::{Builder, Runtime};

use super::super::{Approvals, Config, Datapath, HeldEvents, Steered};
use super::pod::{Pod, in_pod, steered};
use super::probe::{FAR_MAPPED, FAR4, FAR6, address, canonical, counter, original_dst, pending};
use crate::model::{HeldEvent, HeldSyn};

/// Longer than the kernel's first pauses between SYNs: 1 s, 2 s and so on, up to 32 s. A machine that takes seconds to
/// load the programs misses the earlier ones.
const PATIENCE: Duration = Duration::from_secs(64);

/// A shard that holds, without a proxy: the test approves.
pub(super) struct Shard {
    runtime: Runtime,
    pub(super) events: HeldEvents,
    approvals: Approvals,
    listener: Arc<TcpListener>,
}

impl Shard {
    pub(super) fn start(pod: &Pod, datapath: &Datapath) -> Self {
        Self::on(datapath, 0, pod.outbound())
    }

    fn on(datapath: &Datapath, number: u32, listener: Arc<TcpListener>) -> Self {
        let hold = datapath.hold(number, listener.as_fd()).expect("hold");
        datapath.session().set_hold(true).expect("hold");
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let (events, approvals) = runtime.block_on(async { hold.start() }).expect("the ring");
        Self {
            runtime,
            events,
            approvals,
            listener,
        }
    }

    /// At least one.
    pub(super) fn events(&mut self) -> Vec<HeldEvent> {
        let mut seen = Vec::new();
        let next = self.events.next(|event| seen.push(event));
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, next).await })
            .expect("something happens")
            .expect("the ring is readable");
        seen
    }

    /// Those that are there already, if any.
    fn held_now(&mut self) -> Option<Vec<HeldSyn>> {
        let mut seen = Vec::new();
        let next = self.events.next(|event| seen.extend(held(event)));
        self.runtime
            .block_on(async { tokio::time::timeout(Duration::from_millis(10), next).await })
            .ok()?
            .expect("the ring is readable");
        Some(seen)
    }

    pub(super) fn held(&mut self) -> HeldSyn {
        match self.events().pop() {
            Some(HeldEvent::Held(syn) | HeldEvent::Again(syn)) => syn,
            other => panic!("{other:?}"),
        }
    }

    fn approve(&self, syn: &HeldSyn) {
        let approved = self.approvals.approve(syn.pair, syn.sequence);
        assert!(approved.expect("an answer"), "it is held");
    }

    fn is_quiet(&self) -> bool {
        self.listener.set_nonblocking(true).expect("non-blocking");
        let quiet = self
            .listener
            .accept()
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.listener.set_nonblocking(false).expect("blocking");
        quiet
    }
}

fn held(event: HeldEvent) -> Option<HeldSyn> {
    match event {
        HeldEvent::Held(syn) | HeldEvent::Again(syn) => Some(syn),
        _ => None,
    }
}

pub(super) fn dial(to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
    socket.set_nonblocking(true).expect("non-blocking");
    let begun = socket.connect(&to.into()).expect_err("not at once");
    assert_eq!(begun.raw_os_error(), Some(nix::libc::EINPROGRESS), "{to}");
    socket
}

#[test]
fn a_syn_waits_until_it_is_approved_and_the_proxy_learns_where_it_goes() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let mut shard = Shard::start(pod, &datapath);
        for far in [FAR4, FAR6, FAR_MAPPED] {
            let asked = address(far);
            let app = dial(asked);
            let syn = shard.held();
            assert_eq!(syn.original_dst.0, canonical(asked), "{far}");
            assert_eq!(
                syn.pair.client.port(),
                app.local_addr().unwrap().as_socket().unwrap().port()
            );
            assert_eq!(syn.header[13] & 0x3f, 2, "a SYN");
            assert_eq!(syn.header.len(), usize::from(syn.header[12] >> 4) * 4);
            assert!(shard.is_quiet(), "{far}: nobody is let in");
            assert!(shard.approvals.is_held(syn.pair, syn.sequence).unwrap());

            shard.approve(&syn);
            // The client's own next SYN is let in, a second after the first.
            let (accepted, client) = shard.listener.accept().expect("accept");
            assert_eq!(original_dst(&accepted), Some(canonical(asked)), "{far}");
            assert_eq!(canonical(client), syn.pair.client, "{far}");
            assert_eq!(
                canonical(accepted.local_addr().unwrap()),
                syn.pair.listener,
                "{far}"
            );
            assert!(!shard.approvals.is_held(syn.pair, syn.sequence).unwrap());
        }
        assert_eq!(counter(&datapath, "held"), 3);
        assert_eq!(counter(&datapath, "approved"), 3);
        assert_eq!(pending(pod), 0, "accepted connections leave nothing");
    });
}

#[test]
fn an_approval_is_for_one_syn_only() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let mut shard = Shard::start(pod, &datapath);
        let _app = dial(address(FAR4));
        let syn = shard.held();
        let other = syn.sequence.wrapping_add(1);
        assert!(!shard.approvals.approve(syn.pair, other).expect("an answer"));
        shard.approve(&syn);
        assert!(
            shard
                .approvals
                .withdraw(syn.pair, syn.sequence)
                .expect("an answer")
        );
        super::pod::eventually("the client asks again", || counter(&datapath, "held_again") == 1);
        // Its connection may be over when that is read, which is why it is told apart.
        assert!(matches!(&shard.events()[..], [HeldEvent::Again(again)] if again.sequence == syn.sequence));
        assert!(shard.is_quiet());
        assert!(!shard.approvals.withdraw(syn.pair, other).expect("an answer"));
        shard.approve(&syn);
        shard.approve(&syn);
        shard.listener.accept().expect("one that comes later");
        assert!(
            !shard
                .approvals
                .approve(syn.pair, syn.sequence)
                .expect("an answer")
        );
    });
}

#[test]
fn who_gives_up_leaves_nothing_and_the_proxy_is_told() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let mut shard = Shard::start(pod, &datapath);
        for approved in [false, true] {
            let app = dial(address(FAR4));
            let syn = shard.held();
            if approved {
                shard.approve(&syn);
            }
            drop(app);
            let gone = HeldEvent::Gone {
                pair: syn.pair,
                sequence: syn.sequence,
            };
            assert_eq!(shard.events(), [gone]);
            assert_eq!(pending(pod), 0);
            assert!(
                !shard
                    .approvals
                    .approve(syn.pair, syn.sequence)
                    .expect("an answer")
            );
        }
        assert!(shard.is_quiet());
    });
}

#[test]
fn the_next_proxy_is_told_of_what_the_last_one_held() {
    in_pod(|pod| {
        let first = pod.attach(None);
        let mut last = Shard::start(pod, &first);
        let _app = dial(address(FAR4));
        let held = last.held();

        // The last listener stays until the next one holds, however long that takes. A SYN that comes while nobody
        // listens is refused, one that comes before the filter is accepted, and none comes after it.
        let second = pod.attach(None);
        let mut shard = Shard::on(&second, 0, Arc::new(steered()));
        let slots = Steered {
            outbound: Some(shard.listener.as_fd()),
            ..Steered::default()
        };
        second.session().steer(0, slots).expect("steer");
        // Its upstream ends with it, and so does what it has allowed.
        last.approve(&held);
        drop((last, first));
        let again = shard.held();
        assert_eq!((again.pair, again.sequence), (held.pair, held.sequence));
        assert_eq!(again.original_dst, held.original_dst);
        assert!(shard.is_quiet(), "nobody has answered here");
        // Nor is the next SYN let in.
        let asked_again = counter(&second, "held_again");
        super::pod::eventually("the client asks again", || {
            counter(&second, "held_again") > asked_again
        });
        assert!(shard.is_quiet());
    });
}

#[test]
fn each_shard_is_told_of_its_own_connections_and_gets_them() {
    in_pod(|pod| {
        let config = Config {
            shards: 2,
            ..pod.config.clone()
        };
        let datapath = pod.attach_as(&config, None).expect("attach");
        let mut shards = [0, 1].map(|number| {
            let listener = Arc::new(steered());
            let shard = Shard::on(&datapath, number, listener.clone());
            let slots = Steered {
                outbound: Some(listener.as_fd()),
                ..Steered::default()
            };
            datapath.session().steer(number, slots).expect("steer");
            shard
        });
        let apps: Vec<Socket> = (0..64)
            .flat_map(|_| [FAR4, FAR6])
            .map(address)
            .map(dial)
            .collect();
        let mut told = [0, 0];
        while told[0] + told[1] < apps.len() {
            for (n, shard) in shards.iter_mut().enumerate() {
                let Some(syns) = shard.held_now() else { continue };
                for syn in syns {
                    shard.approve(&syn);
                    told[n] += 1;
                }
            }
        }
        assert!(told.iter().all(|n| *n > apps.len() / 4), "{told:?}");
        for (shard, told) in shards.iter().zip(told) {
            for _ in 0..told {
                let (accepted, _) = shard.listener.accept().expect("accept");
                assert!(original_dst(&accepted).is_some());
            }
            assert!(shard.is_quiet());
        }
        drop(apps);
    });
}

/// The entry of a connection is there before its SYN, so nothing that comes later can fail for want of room.
#[test]
fn without_room_new_connections_fail_and_those_that_wait_live_on() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let mut shard = Shard::start(pod, &datapath);
        let _earlier = dial(address(FAR4));
        let earlier = shard.held();
        let map = pod.map(map::PENDING).expect("the pinned map");
        let junk: Pending = bytemuck::Zeroable::zeroed();
        for n in 1..PENDING_ENTRIES as u32 {
            let key = Tuple {
                reserved: n,
                ..bytemuck::Zeroable::zeroed()
            };
            map.set(&key, &junk).expect("room");
        }
        let late = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
        let failed = late.connect(&address(FAR6).into()).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(nix::libc::EHOSTUNREACH));
        assert_eq!(counter(&datapath, "publish_failed"), 1);
        shard.approve(&earlier);
        let (accepted, _) = shard.listener.accept().expect("accept");
        assert_eq!(original_dst(&accepted), Some(address(FAR4)));
    });
}

/// The proxy hears of an end through its ring, and decides before it has read that.
#[test]
fn an_approval_for_who_has_gone_changes_nothing_for_who_has_the_same_two_ends_now() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let mut shard = Shard::start(pod, &datapath);
        let from = |port: u16| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
            socket.set_reuse_address(true).expect("an option");
            socket.set_nonblocking(true).expect("non-blocking");
            let own = SocketAddr::from(([0, 0, 0, 0], port));
            socket.bind(&own.into()).expect("bind");
            let begun = socket.connect(&address(FAR4).into()).expect_err("not at once");
            assert_eq!(begun.raw_os_error(), Some(nix::libc::EINPROGRESS));
            socket
        };
        let mut app = from(0);
        let first = shard.held();
        let mut before = first.clone();
        for _ in 0..200 {
            drop(app);
            app = from(first.pair.client.port());
            let approve = || shard.approvals.approve(before.pair, before.sequence);
            assert!(!approve().expect("an answer"), "it has gone");
            // After the end of the one before.
            let now = loop {
                if let Some(HeldEvent::Held(now)) = shard.events().pop() {
                    break now;
                }
            };
            assert_eq!((now.pair, now.original_dst), (first.pair, first.original_dst));
            assert_ne!(now.sequence, before.sequence);
            let approve = || shard.approvals.approve(before.pair, before.sequence);
            assert!(!approve().expect("an answer"), "nor is this one approved by it");
            before = now;
        }
        shard.approve(&before);
        let (accepted, _) = shard.listener.accept().expect("accept");
        assert_eq!(original_dst(&accepted), Some(address(FAR4)));
        assert!(shard.is_quiet());
    });
}

#[test]
fn a_full_ring_delays_a_connection_and_loses_none() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let mut shard = Shard::start(pod, &datapath);
        let apps: Vec<Socket> = (0..600)
            .map(|n| dial(SocketAddr::new([203, 0, 113, 7].into(), 1000 + n)))
            .collect();
        assert!(counter(&datapath, "ring_full") > 0, "the test fills the ring");
        let mut held = 0;
        while held < apps.len() {
            held += shard
                .events()
                .iter()
                .filter(|event| matches!(event, HeldEvent::Held(_)))
                .count();
        }
        assert_eq!(counter(&datapath, "held"), 600);
    });
}
