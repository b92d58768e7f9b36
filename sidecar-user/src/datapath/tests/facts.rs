//! Facts about connections that never come to the proxy: what it is told of them when they end.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::super::{Config, Datapath, LeftAloneEvent, policy};
use super::hold::{Shard, dial};
use super::pod::{POD4, POD6, Pod, in_pod};
use super::probe::{FAR4, FAR6, address, counter, listener};
use crate::model::{Cause, Direction, Flow, HeldEvent, Outcome, Party, TcpFacts, Transport};

const EOF: Outcome = Outcome::new(Party::Client, Cause::Eof);
/// On the neighbour's network, and nobody's.
const NOBODY: &str = "10.99.0.77:80";

/// A shard that holds, and leaves the neighbour's network alone, and one port of the pod.
struct World {
    datapath: Datapath,
    shard: Shard,
    told: Rc<RefCell<Vec<LeftAloneEvent>>>,
}

impl World {
    fn start(pod: &Pod, port: u16) -> Self {
        let text = format!(
            "outbound: [{{destinations: [10.99.0.0/16, \"fd99::/64\"], action: leave}}]\n\
             inbound: [{{ports: [{port}], action: leave}}]"
        );
        let config = Config {
            policy: policy::parse(&text).unwrap_or_else(|problems| panic!("{problems}")),
            ..pod.config.clone()
        };
        let datapath = pod.attach_as(&config, None).expect("attach");
        let mut shard = Shard::start(pod, &datapath);
        let told = Rc::<RefCell<Vec<_>>>::default();
        let tell = told.clone();
        shard
            .events
            .tell_of_left_alone(move |event| tell.borrow_mut().push(event));
        Self {
            datapath,
            shard,
            told,
        }
    }

    fn next(&mut self) -> LeftAloneEvent {
        while self.told.borrow().is_empty() {
            assert_eq!(self.shard.events(), [], "nothing is held");
        }
        self.told.borrow_mut().remove(0)
    }

    fn opened(&mut self) -> Flow {
        match self.next() {
            LeftAloneEvent::Opened(flow, 0) => flow,
            other => panic!("{other:?}"),
        }
    }

    /// The next one, which ends, and no other.
    fn ended(&mut self) -> (Flow, Outcome) {
        let told = self.next();
        assert!(self.told.borrow().is_empty(), "{:?}", self.told);
        match told {
            LeftAloneEvent::Ended(flow, outcome) => (flow, outcome),
            LeftAloneEvent::Opened(flow, _) => panic!("{flow:?}"),
        }
    }
}

/// What the kernel says of the one connection that there is.
fn figures(flow: &Flow) -> TcpFacts {
    let legs = flow.legs.as_ref().expect("figures");
    let (leg, other) = match flow.direction {
        Direction::Outbound => (legs.upstream, legs.client),
        Direction::Inbound => (legs.client, legs.upstream),
    };
    assert_eq!(other, None);
    leg.expect("figures").tcp
}

/// The server ends first, so that the client's end is the one whose last state is LAST_ACK, and there is no TIME-WAIT to wait for.
fn exchange(mut client: TcpStream, mut server: TcpStream) {
    let mut bytes = [0; 1000];
    client.write_all(&bytes).expect("write");
    server.read_exact(&mut bytes).expect("read");
    server.write_all(&bytes[..7]).expect("write");
    drop(server);
    let read = client.read_to_end(&mut Vec::new()).expect("read");
    assert_eq!(read, 7);
}

#[test]
fn who_leaves_the_pod_by_the_policy_is_told_of_with_what_tcp_has_counted() {
    in_pod(|pod| {
        let mut world = World::start(pod, 1);
        let at = |neighbour: &TcpListener| neighbour.local_addr().unwrap();
        let (at4, at6) = (at(&pod.neighbour4), at(&pod.neighbour6));
        let mapped = SocketAddr::new("::ffff:10.99.0.1".parse().unwrap(), at4.port());
        for (to, neighbour, shown) in [
            (at4, &pod.neighbour4, at4),
            (mapped, &pod.neighbour4, at4),
            (at6, &pod.neighbour6, at6),
        ] {
            let client = TcpStream::connect(to).expect("connect");
            let own = client.local_addr().unwrap();
            let open = world.opened();
            assert_eq!(
                (open.client, open.original_dst),
                (super::probe::canonical(own), Some(shown))
            );
            assert!(open.connect_time.is_some() && open.legs.is_none(), "{open:?}");
            exchange(client, neighbour.accept().expect("accept").0);
            let (flow, outcome) = world.ended();
            assert_eq!((flow.direction, outcome), (Direction::Outbound, EOF));
            assert_eq!((flow.original_dst, flow.chosen_dst), (Some(shown), Some(shown)));
            assert_eq!(flow.client, super::probe::canonical(own));
            assert_eq!(flow.transport, Transport::LeftAlone);
            let took = flow.connect_time.expect("it was connected");
            assert!(
                took > Duration::ZERO && took < Duration::from_secs(60),
                "{took:?}"
            );
            let tcp = figures(&flow);
            // TCP counts SYN and FIN as bytes; whether the last FIN is acknowledged before the socket closes depends on nobody here.
            assert!((1001..=1002).contains(&tcp.bytes_acked), "{tcp:?}");
            assert!((7..=8).contains(&tcp.bytes_received), "{tcp:?}");
            assert!(tcp.min_rtt.is_some() && tcp.min_rtt <= tcp.rtt, "{tcp:?}");
            assert!(tcp.segments_sent >= 4 && tcp.segments_received >= 3, "{tcp:?}");
            assert!(tcp.congestion_window > 0 && tcp.segment_size >= 500, "{tcp:?}");
            assert!(tcp.segments_retransmitted <= tcp.segments_sent, "{tcp:?}");
        }
        assert_eq!(counter(&world.datapath, "facts_lost"), 0);
    });
}

#[test]
fn who_is_refused_or_not_answered_there_is_told_of_with_the_cause() {
    in_pod(|pod| {
        let mut world = World::start(pod, 1);
        for at in [pod.neighbour4.local_addr(), pod.neighbour6.local_addr()] {
            let closed = SocketAddr::new(at.unwrap().ip(), 1);
            let refused = TcpStream::connect(closed).expect_err("nobody listens");
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
            let (flow, outcome) = world.ended();
            assert_eq!(outcome, Outcome::new(Party::Upstream, Cause::ConnectionRefused));
            assert_eq!((flow.original_dst, flow.connect_time), (Some(closed), None));
            assert_eq!(figures(&flow).rtt, None);
        }
        drop(dial(address(NOBODY)));
        let (flow, outcome) = world.ended();
        assert_eq!(outcome, Outcome::new(Party::Upstream, Cause::TimedOut));
        assert_eq!(flow.original_dst, Some(address(NOBODY)));

        let client = TcpStream::connect(pod.neighbour4.local_addr().unwrap()).expect("connect");
        let server = pod.neighbour4.accept().expect("accept").0;
        world.opened();
        let linger = socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO));
        linger.expect("an option");
        drop(server);
        let (_, outcome) = world.ended();
        assert_eq!(outcome, Outcome::new(Party::Upstream, Cause::Reset));
        drop(client);
    });
}

#[test]
fn whom_the_programs_refuse_is_told_of_and_counted() {
    in_pod(|pod| {
        let mut world = World::start(pod, 1);
        world.datapath.session().set_strict(true).expect("mode");
        let bound = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
        let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        bound.bind(&loopback.into()).expect("bind");
        let denied = bound.connect(&address(FAR6).into()).unwrap_err();
        assert_eq!(denied.raw_os_error(), Some(nix::libc::EPERM));
        let (flow, outcome) = world.ended();
        assert_eq!(outcome, Outcome::new(Party::Policy, Cause::Denied));
        assert_eq!((flow.original_dst, flow.chosen_dst), (Some(address(FAR6)), None));
        assert_eq!((flow.client, flow.direction), (loopback, Direction::Outbound));
        assert!(flow.legs.is_none(), "{flow:?}");
        assert_eq!(counter(&world.datapath, "denied_special"), 1);

        // Complete, and none of them goes there.
        let mut routes = world.datapath.session().routes().expect("routes");
        routes.complete(true).expect("complete");
        let nowhere = TcpStream::connect(FAR4).expect_err("no route");
        assert_eq!(nowhere.raw_os_error(), Some(nix::libc::ENETUNREACH));
        let (flow, outcome) = world.ended();
        assert_eq!(outcome, Outcome::new(Party::Upstream, Cause::Unreachable));
        assert_eq!(flow.original_dst, Some(address(FAR4)));
        assert!(flow.client.ip().is_unspecified(), "it had none yet: {flow:?}");
    });
}

#[test]
fn of_those_from_outside_only_who_comes_by_the_policy_is_told_of_and_of_those_inside_none() {
    in_pod(|pod| {
        let app = listener(Domain::IPV6);
        let port = app.local_addr().unwrap().port();
        let mut world = World::start(pod, port);
        for ip in [POD4, POD6] {
            let to = SocketAddr::new(ip.parse().unwrap(), port);
            let inside = TcpStream::connect(to).expect("connect");
            exchange(inside, app.accept().expect("accept").0);

            let outsider = pod.outsider(to);
            outsider.connect(&to.into()).expect("left alone");
            let own = outsider.local_addr().unwrap().as_socket().unwrap();
            let open = world.opened();
            assert_eq!((open.client, open.original_dst), (own, Some(to)));
            // Here the application ends last.
            exchange(app.accept().expect("accept").0, outsider.into());
            let (flow, outcome) = world.ended();
            assert_eq!((flow.direction, outcome), (Direction::Inbound, EOF));
            assert_eq!((flow.client, flow.original_dst), (own, Some(to)));
            assert_eq!(flow.connect_time, None);
            assert!((7..=8).contains(&flow.bytes.sent()), "{flow:?}");
            assert!((1000..=1001).contains(&flow.bytes.received()), "{flow:?}");
        }
        // One that the proxy takes has a flow of its own.
        let app = dial(address(FAR4));
        world.shard.held();
        drop(app);
        assert!(matches!(&world.shard.events()[..], [HeldEvent::Gone { .. }]));
        assert!(world.told.borrow().is_empty());
    });
}

#[test]
fn what_the_proxy_does_not_read_in_time_is_counted_as_lost_and_leaves_room_for_syns() {
    in_pod(|pod| {
        const ENDED: u64 = 600;
        let mut world = World::start(pod, 1);
        let closed = SocketAddr::new(pod.neighbour4.local_addr().unwrap().ip(), 1);
        for _ in 0..ENDED {
            TcpStream::connect(closed).expect_err("nobody listens");
        }
        let lost = counter(&world.datapath, "facts_lost");
        assert!(
            lost > 0 && lost < ENDED,
            "the test fills half of the ring: {lost}"
        );
        let _apps: Vec<Socket> = (0..8).map(|_| dial(address(FAR4))).collect();
        assert_eq!(counter(&world.datapath, "ring_full"), 0);
        let mut held = 0;
        while held < 8 {
            held += world.shard.events().len();
        }
        assert_eq!(
            world.told.borrow().len() as u64,
            ENDED - lost,
            "the others are told of"
        );

        // Once that is read, there is room again.
        world.told.borrow_mut().clear();
        TcpStream::connect(closed).expect_err("nobody listens");
        world.ended();
        assert_eq!(counter(&world.datapath, "facts_lost"), lost);
    });
}
