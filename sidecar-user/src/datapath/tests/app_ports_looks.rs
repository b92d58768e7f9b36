//! Facts about when user space has to look for listeners, and what it finds that the programs have no room for.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use bytemuck::Pod as Plain;
use sidecar_ebpf::abi::{APP_PORT_ENTRIES, APP_SOCKET_ENTRIES, AppPort, AppSocket, map};
use sidecar_ebpf::addr::{Ip, Port};
use socket2::Domain;

use super::super::Error;
use super::app_ports::{are_open, attached, found, is_open, set};
use super::pod::{POD4, Pod, in_pod};
use super::probe::listener;

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
        fills(
            pod,
            map::APP_SOCKETS,
            |n| {
                let at = AppSocket {
                    ip: Ip::from_v4(0),
                    port: Port::new(1),
                    reserved: 0,
                };
                (n as u64 | 1 << 40, at)
            },
            APP_SOCKET_ENTRIES,
        );
    });
}

#[test]
fn a_port_that_the_programs_have_no_room_for_is_found_by_user_space() {
    in_pod(|pod| {
        fills(
            pod,
            map::APP_PORTS,
            |n| (n as u32 + 1, AppPort { v4: 0, v6: 0 }),
            APP_PORT_ENTRIES,
        )
    });
}

/// A listener of a pod whose map is full.
fn fills<K: Plain, V: Plain>(pod: &Pod, map: &'static str, entry: impl Fn(usize) -> (K, V), entries: usize) {
    let inbound = pod.inbound();
    let datapath = attached(pod, &inbound, &[]);
    let mut ports = datapath.session().app_ports().expect("ports");
    set(&mut ports, &[]);
    assert!(!ports.is_crowded());
    let full = pod.map(map).expect(map);
    for n in 0..entries {
        let (key, value) = entry(n);
        full.set(&key, &value).expect("room");
    }
    // Above all ports that were filled in.
    let app = listener(Domain::IPV6);
    let port = app.local_addr().unwrap().port();
    assert!(usize::from(port) > entries);
    assert_eq!(are_open(pod, port), [false; 2], "the programs have no room");
    assert!(waits_for(ports.closed()));
    let news = ports.set(|| Ok::<_, Error>(vec![found(&app)])).expect("a look");
    assert!(news && ports.is_crowded());
    assert_eq!(are_open(pod, port), [true; 2]);
    drop(app);
    set(&mut ports, &[]);
    assert_eq!(are_open(pod, port), [false; 2]);
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
