//! What the control path costs: `--ignored --nocapture` prints it. Asserts nothing, as other programs run beside it.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sidecar_ebpf::abi::{Origin, Pending, Role, Stage, Tuple, map};
use sidecar_ebpf::addr::{Endpoint, Ip, Port};
use tokio::runtime::Builder;

use super::super::install::pins;
use super::super::{Approvals, Policy, Session};
use super::confined::confined;
use super::control::{controlled, tcp};
use super::pod::{Pod, in_pod, steered};
use super::probe::address;
use crate::model::Pair;

const BATCHES: usize = 400;
const CALLS: u32 = 500;
const SEQUENCE: u32 = 4711;

/// Microseconds. The fastest of many batches, because the others were interrupted.
fn least(mut call: impl FnMut()) -> f64 {
    let batch = |_| {
        let start = Instant::now();
        (0..CALLS).for_each(|_| call());
        start.elapsed()
    };
    let least: Duration = (0..BATCHES).map(batch).min().expect("some");
    least.as_secs_f64() * 1e6 / f64::from(CALLS)
}

#[test]
#[ignore = "a measurement"]
fn what_the_control_path_costs() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let socket = tcp();
        let other = || socket.set_tcp_nodelay(true).expect("set");
        let bare = least(other);
        drop(datapath);
        let (datapath, by_control) = controlled(pod);
        let with = least(other);
        let descriptors = datapath.descriptors().expect("descriptors");
        let by_bpf = Session::new(descriptors, &Policy::default()).expect("a session");
        println!("another option: {bare:.2} us, with the program {with:.2} us");

        let mark = |session: &Session| {
            let bypass = session.bypass();
            least(|| bypass.mark(socket.as_fd()).expect("mark"))
        };
        let fresh = |session: &Session| {
            let bypass = session.bypass();
            least(|| bypass.mark(tcp().as_fd()).expect("mark"))
        };
        let bare = least(|| drop(tcp()));
        println!(
            "a mark by bpf(2): {:.2} us, first on a new socket {:.2} us",
            mark(&by_bpf),
            fresh(&by_bpf) - bare
        );
        let (again, first) = confined(|| (mark(&by_control), fresh(&by_control) - bare));
        println!("a mark by the control path: {again:.2} us, first on a new socket {first:.2} us");

        let pair = held(pod);
        let toggle = |approvals: &Approvals| {
            least(|| {
                assert!(approvals.approve(pair, SEQUENCE).expect("asked"));
                assert!(approvals.withdraw(pair, SEQUENCE).expect("asked"));
            }) / 2.0
        };
        let bpf = toggle(&approvals(&by_bpf));
        let control = approvals(&by_control);
        let control = confined(|| toggle(&control));
        println!("an approval by bpf(2): {bpf:.2} us, by the control path {control:.2} us");
    });
}

fn approvals(session: &Session) -> Approvals {
    let listener = steered();
    let hold = session.hold(0, listener.as_fd()).expect("hold");
    let runtime = Builder::new_current_thread().enable_all().build();
    let started = runtime.expect("a runtime").block_on(async { hold.start() });
    started.expect("the ring").1
}

/// A connection that waits, though nobody has dialled.
fn held(pod: &Pod) -> Pair {
    let settings = pins::pinned_settings(&pod.config.pins).expect("settings");
    let end = |at: SocketAddr| {
        let SocketAddr::V4(at) = at else { panic!("{at}") };
        (
            Ip::from_v4(u32::from_ne_bytes(at.ip().octets())),
            Port::new(at.port()),
        )
    };
    let pair = Pair {
        client: address("10.99.0.2:40000"),
        listener: address("127.64.0.9:1"),
    };
    let ((source, source_port), (destination, destination_port)) = (end(pair.client), end(pair.listener));
    let tuple = Tuple {
        netns: settings.netns,
        source,
        destination,
        source_port,
        destination_port,
        reserved: 0,
    };
    let to = Endpoint {
        ip: source,
        port: source_port,
    };
    let pending = Pending {
        origin: Origin::new(to, Role::CLIENT),
        stage: Stage::held(SEQUENCE, settings.first_shard.into()),
    };
    let map = pod.map(map::PENDING).expect("the map");
    map.set(&tuple, &pending).expect("room");
    pair
}
