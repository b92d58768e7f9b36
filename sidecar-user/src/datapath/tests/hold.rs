//! Facts about SYNs that wait for their upstream.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use sidecar_ebpf::abi::{HELD_ENTRIES, Held, Tuple, map};
use socket2::{Domain, Socket, Type};
use tokio::runtime::{Builder, Runtime};

use super::super::map::Map;
use super::super::{Approvals, Config, Datapath, HeldEvents, Steered};
use super::pod::{Pod, in_pod, steered};
use super::probe::{FAR_MAPPED, FAR4, FAR6, address, canonical, counter, handshakes, original_dst};
use crate::model::{HeldEvent, HeldSyn};

/// Longer than the kernel's first pauses between SYNs: 1 s, 2 s and so on, up to 32 s. A machine that takes seconds to
/// load the programs misses the earlier ones.
const PATIENCE: Duration = Duration::from_secs(64);

/// A shard that holds, without a proxy: the test approves.
struct Shard {
    runtime: Runtime,
    events: HeldEvents,
    approvals: Approvals,
    listener: Arc<TcpListener>,
}

impl Shard {
    fn start(pod: &Pod, datapath: &Datapath) -> Self {
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
    fn events(&mut self) -> Vec<HeldEvent> {
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

    fn held(&mut self) -> HeldSyn {
        match self.events().pop() {
            Some(HeldEvent::Held(syn)) => syn,
            other => panic!("{other:?}"),
        }
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
        HeldEvent::Held(syn) => Some(syn),
        _ => None,
    }
}

fn entries(pod: &Pod, name: &'static str) -> usize {
    let keys = |keys: Result<Vec<Tuple>, _>| keys.expect("the keys").len();
    match name {
        map::HELD => keys(pinned::<Held>(pod, name).keys()),
        _ => keys(pinned::<u32>(pod, name).keys()),
    }
}

fn pinned<V: bytemuck::Pod>(pod: &Pod, name: &'static str) -> Map<Tuple, V> {
    pod.map(name).expect("the pinned map")
}

fn dial(to: SocketAddr) -> Socket {
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

            shard.approvals.approve(syn.pair, syn.sequence).expect("approve");
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
        for name in [map::HELD, map::APPROVED] {
            assert_eq!(
                entries(pod, name),
                0,
                "{name}: accepted connections leave nothing"
            );
        }
        assert_eq!(handshakes(pod), 0);
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
        shard.approvals.approve(syn.pair, other).expect("approve");
        super::pod::eventually("the client asks again", || counter(&datapath, "held_again") == 1);
        assert!(shard.is_quiet());
        shard.approvals.withdraw(syn.pair, other).expect("withdraw");
        shard
            .approvals
            .withdraw(syn.pair, other)
            .expect("withdrawn already");
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
                shard.approvals.approve(syn.pair, syn.sequence).expect("approve");
            }
            drop(app);
            let gone = HeldEvent::Gone {
                pair: syn.pair,
                sequence: syn.sequence,
            };
            assert_eq!(shard.events(), [gone]);
            for name in [map::HELD, map::APPROVED] {
                assert_eq!(entries(pod, name), 0, "{name}");
            }
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
        last.approvals.approve(held.pair, held.sequence).expect("approve");
        drop((last, first));
        let again = shard.held();
        assert_eq!((again.pair, again.sequence), (held.pair, held.sequence));
        assert_eq!(again.original_dst, held.original_dst);
        assert!(shard.is_quiet(), "nobody has answered here");
        assert_eq!(entries(pod, map::APPROVED), 0, "nor will the next SYN be let in");
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
                    shard.approvals.approve(syn.pair, syn.sequence).expect("approve");
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

#[test]
fn without_room_a_connection_is_to_be_refused_and_others_live_on() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let mut shard = Shard::start(pod, &datapath);
        let _earlier = dial(address(FAR4));
        let earlier = shard.held();
        let held = pod.map(map::HELD).expect("the pinned map");
        let junk: Held = bytemuck::Zeroable::zeroed();
        for n in 1..HELD_ENTRIES as u32 {
            let key = Tuple {
                sequence: n,
                ..bytemuck::Zeroable::zeroed()
            };
            held.set(&key, &junk).expect("room");
        }
        let _late = dial(address(FAR6));
        match shard.events().pop() {
            Some(HeldEvent::NoRoom(syn)) => assert_eq!(syn.original_dst.0, address(FAR6)),
            other => panic!("{other:?}"),
        }
        assert_eq!(counter(&datapath, "held_full"), 1);
        assert!(shard.approvals.is_held(earlier.pair, earlier.sequence).unwrap());
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
