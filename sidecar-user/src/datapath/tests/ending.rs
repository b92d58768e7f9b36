//! Facts about the end of a pod whose proxy has attached by itself: nothing is pinned any more, and it is closed all the same.

use std::io::ErrorKind::{ConnectionRefused, PermissionDenied};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::Domain;

use super::pod::{POD4, in_pod};
use super::probe::listener;

/// Of packets that nobody answers.
const SILENCE: Duration = Duration::from_millis(200);

#[test]
fn what_ends_a_pod_leaves_no_pin_and_lets_no_packet_pass_until_a_proxy_attaches_again() {
    in_pod(|pod| {
        let app = listener(Domain::IPV6);
        let inward = SocketAddr::new(POD4.parse().unwrap(), app.local_addr().unwrap().port());
        let outward = pod.neighbour4.local_addr().unwrap();
        let send = || UdpSocket::bind((POD4, 0)).unwrap().send_to(b"x", outward);
        let datapath = pod.attach(None);
        send().expect("UDP passes by");
        let ending = datapath.ending().expect("loaded");
        assert!(ending.close().expect("closed"));
        assert!(!pod.config.pins.exists(), "something is pinned");
        drop((ending, datapath));

        assert_eq!(send().unwrap_err().kind(), PermissionDenied);
        let silent = TcpStream::connect_timeout(&outward, SILENCE).expect_err("closed");
        assert_ne!(
            silent.kind(),
            ConnectionRefused,
            "a packet left the pod: {silent}"
        );
        let outsider = pod.outsider(inward);
        outsider
            .connect_timeout(&inward.into(), SILENCE)
            .expect_err("nobody gets in");

        let outbound = pod.outbound();
        let _next = pod.attach(None);
        send().expect("the next proxy opens it");
        let _client = TcpStream::connect(outward).expect("and serves");
        outbound.accept().expect("it gets there");
    });
}

#[test]
fn a_pod_that_another_proxy_has_taken_over_is_not_ended_by_the_one_before() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let ending = datapath.ending().expect("loaded");
        datapath.handover().leave();
        assert!(!ending.close().expect("looked"), "it is another's");
        assert!(pod.config.pins.join("links").exists());
    });
}
