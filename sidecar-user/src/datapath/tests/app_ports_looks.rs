//! Facts about when user space has to look for listeners, and what it finds that the programs have no room for.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use sidecar_ebpf::abi::{APP_SOCKET_ENTRIES, AppSocket, map};
use sidecar_ebpf::addr::{Ip, Port};
use socket2::Domain;

use super::super::{Action, Error};
use super::app_ports::{are_open, attached, found, is_open, set};
use super::pod::{POD4, in_pod, own_cgroup};
use super::probe::{counter, listener};
use crate::model::network::Listening;

/// Of the runtime's own clock, which runs ahead where everybody waits.
const LONG: Duration = Duration::from_secs(600);

#[test]
fn while_nothing_happens_nobody_looks() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let datapath = attached(pod, &inbound, &[]);
        let mut ports = datapath.session().app_ports().expect("ports");
        set(&mut ports, &[]);
        let app = listener(Domain::IPV6);
        assert!(is_open(pod, POD4, app.local_addr().unwrap().port()));
        drop(app);
        assert!(!waits_for(ports.closed()), "no attempt was refused");
        assert!(!waits_for(ports.ended()), "no application has refused anybody");
    });
}

#[test]
fn a_refused_attempt_is_a_reason_to_look_until_the_next_look() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let datapath = attached(pod, &inbound, &[]);
        let mut ports = datapath.session().app_ports().expect("ports");
        set(&mut ports, &[]);
        assert!(!is_open(pod, POD4, 9));
        assert!(waits_for(ports.closed()));
        set(&mut ports, &[]);
        assert!(!waits_for(ports.closed()));

        // A peer's, which the programs do not see.
        let socket = pod.outsider("192.0.2.1:9".parse().unwrap());
        let (client, closed) = (address("198.51.100.7", 4711), address(POD4, 9));
        datapath
            .session()
            .bypass()
            .present(socket.as_fd(), client, closed)
            .unwrap_err();
        assert!(waits_for(ports.closed()));
    });
}

#[test]
fn an_application_that_refuses_where_a_listener_was_found_is_a_reason_to_look() {
    in_pod(|pod| {
        let (inbound, old) = (pod.inbound(), listener(Domain::IPV6));
        let datapath = pod.attach(Some(&inbound));
        let mut ports = datapath.session().app_ports().expect("ports");
        let new = listener(Domain::IPV6);
        set(&mut ports, &[&old, &new].map(found));
        let refused_by = |app: &std::net::TcpListener| {
            let port = app.local_addr().unwrap().port();
            datapath.session().bypass().refused_by(address(POD4, port));
        };
        refused_by(&new);
        assert!(!waits_for(ports.ended()), "the programs see it end");
        refused_by(&old);
        assert!(waits_for(ports.ended()));
    });
}

#[test]
fn a_socket_that_the_programs_have_no_room_for_is_found_by_user_space() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let datapath = attached(pod, &inbound, &[]);
        let mut ports = datapath.session().app_ports().expect("ports");
        set(&mut ports, &[]);
        assert!(!ports.is_crowded());
        let full = pod.map(map::APP_SOCKETS).expect("a map");
        for n in 0..APP_SOCKET_ENTRIES as u64 {
            let at = AppSocket {
                ip: Ip::from_v4(0),
                port: Port::new(1),
                reserved: 0,
            };
            full.set(&(n | 1 << 40), &at).expect("room");
        }
        let app = listener(Domain::IPV6);
        let port = app.local_addr().unwrap().port();
        assert_eq!(are_open(pod, port), [false; 2], "the programs have no room");
        assert!(waits_for(ports.closed()));
        let news = ports.set(|| Ok::<_, Error>(vec![found(&app)])).expect("a look");
        assert!(news && ports.is_crowded());
        assert_eq!(are_open(pod, port), [true; 2]);
        drop(app);
        set(&mut ports, &[]);
        assert_eq!(are_open(pod, port), [false; 2]);
    });
}

/// Each has a number of its own from the beginning, so that ports of the past take nothing from those to come.
#[test]
fn a_pod_may_listen_on_one_port_after_another_and_none_is_refused() {
    const PORTS: std::ops::Range<u16> = 20_000..26_000;
    in_pod(|pod| {
        let inbound = pod.inbound();
        let datapath = attached(pod, &inbound, &[]);
        let explain = datapath.session().explain();
        let is_steered = |port| {
            let outside = "192.0.2.9".parse().expect("an address");
            let verdict = explain
                .inbound(6, outside, address(POD4, port))
                .expect("an answer");
            matches!(verdict.action, Action::Take(_))
        };
        for port in PORTS {
            let app = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a free port");
            assert!(is_steered(port), "{port}");
            if port % 1_000 == 999 {
                assert!(is_open(pod, POD4, port), "{port}");
            }
            drop(app);
            assert!(!is_steered(port), "{port}");
        }
        assert_eq!(counter(&datapath, "dropped_closed"), 0);
        assert_eq!(counter(&datapath, "steered"), 6);
        let mut ports = datapath.session().app_ports().expect("ports");
        set(&mut ports, &[]);
        assert!(!ports.is_crowded());
    });
}

#[test]
fn user_space_finds_listeners_on_any_number_of_ports() {
    const PORTS: std::ops::Range<u16> = 20_000..26_000;
    in_pod(|pod| {
        let inbound = pod.inbound();
        let datapath = attached(pod, &inbound, &[]);
        let mut ports = datapath.session().app_ports().expect("ports");
        let from_before = |port: u16| Listening {
            cookie: u64::from(port) << 40,
            at: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
            cgroup: Some(own_cgroup()),
        };
        set(&mut ports, &PORTS.map(from_before).collect::<Vec<_>>());
        let explain = datapath.session().explain();
        let open = |ports: std::ops::Range<u16>| {
            let outside = "192.0.2.9".parse().expect("an address");
            let is_steered = |port: &u16| {
                let verdict = explain
                    .inbound(6, outside, address(POD4, *port))
                    .expect("an answer");
                matches!(verdict.action, Action::Take(_))
            };
            ports.filter(is_steered).count()
        };
        assert_eq!(open(19_000..27_000), PORTS.len());
        assert!(is_open(pod, POD4, 25_999) && !is_open(pod, POD4, 26_000));
        // Of two ports that share a word one ends.
        set(&mut ports, &[from_before(20_001)]);
        assert_eq!(open(19_000..27_000), 1);
        assert!(is_open(pod, POD4, 20_001) && !is_open(pod, POD4, 20_000));
    });
}

/// Whether it comes to an end before long, where nothing else happens.
fn waits_for(reason: impl Future<Output = ()>) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(LONG, reason).await.is_ok() })
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}
