//! Facts about ports on which the application listens, and those on which it does not.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use socket2::{Domain, Socket, Type};

use super::super::{AppPorts, Datapath, Error, sys};
use super::pod::{Elsewhere, POD4, POD6, Pod, in_pod, own_cgroup};
use super::probe::{address, counter, listener};
use crate::model::network::Listening;

#[test]
fn a_port_on_which_nobody_listens_is_refused() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let datapath = pod.attach(Some(&inbound));
        let port = listener(Domain::IPV6).local_addr().unwrap().port();
        assert!(is_open(pod, POD4, port), "nothing is known yet");
        let mut ports = datapath.session().app_ports().expect("ports");
        set(&mut ports, &[]);
        assert_eq!(are_open(pod, port), [false; 2]);
        assert_eq!(counter(&datapath, "dropped_closed"), 2);
        assert_eq!(counter(&datapath, "steered"), 1);
    });
}

#[test]
fn a_listener_opens_its_port_at_once_and_its_end_closes_it() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let datapath = attached(pod, &inbound, &[]);
        let app = listener(Domain::IPV6);
        let port = app.local_addr().unwrap().port();
        let mut ports = datapath.session().app_ports().expect("ports");
        // Found by user space, too, it still counts once.
        set(&mut ports, &[found(&app)]);
        assert_eq!(are_open(pod, port), [true; 2]);
        drop(app);
        assert_eq!(are_open(pod, port), [false; 2]);
    });
}

#[test]
fn a_listener_from_before_the_programs_counts_until_it_is_found_no_more() {
    in_pod(|pod| {
        let (inbound, app) = (pod.inbound(), listener(Domain::IPV6));
        let port = app.local_addr().unwrap().port();
        let datapath = pod.attach(Some(&inbound));
        let mut ports = datapath.session().app_ports().expect("ports");
        set(&mut ports, &[found(&app)]);
        assert_eq!(are_open(pod, port), [true; 2]);
        drop(app);
        set(&mut ports, &[]);
        assert_eq!(are_open(pod, port), [false; 2]);
    });
}

/// Nothing would show its program the client, but the proxy, whose address is the pod's own.
#[test]
fn a_listener_outside_of_the_cgroup_is_served_to_nobody() {
    in_pod(|pod| {
        let (inbound, app) = (pod.inbound(), listener(Domain::IPV6));
        let port = app.local_addr().unwrap().port();
        // Its hooks are not this process's.
        let elsewhere = Elsewhere::new(pod);
        let datapath = pod.attach_as(&elsewhere.0, Some(&inbound)).expect("attach");
        let mut ports = datapath.session().app_ports().expect("ports");
        set(&mut ports, &[found(&app)]);
        assert_eq!(are_open(pod, port), [false; 2]);
        let client = address("198.51.100.7:4711");
        for own in [POD4, POD6] {
            let application = SocketAddr::new(own.parse().unwrap(), port);
            let socket = Socket::new(Domain::for_address(application), Type::STREAM, None).expect("socket");
            let refused = datapath
                .session()
                .bypass()
                .present(socket.as_fd(), client, application)
                .unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{own}");
        }

        let of_the_pod = Listening {
            cgroup: Some(std::fs::metadata(&elsewhere.0.cgroup).expect("a cgroup").ino()),
            cookie: u64::MAX,
            ..found(&app)
        };
        set(&mut ports, &[found(&app), of_the_pod]);
        assert_eq!(are_open(pod, port), [true; 2], "another one on the same port");
    });
}

/// What the last proxy has found stays in force, until the next one has looked itself.
#[test]
fn a_closed_port_is_closed_and_an_older_listener_is_served_while_the_next_proxy_starts() {
    in_pod(|pod| {
        let (inbound, older) = (pod.inbound(), listener(Domain::IPV6));
        let open = older.local_addr().unwrap().port();
        let closed = listener(Domain::IPV6).local_addr().unwrap().port();
        drop(attached(pod, &inbound, &[&older].map(found)));
        let datapath = pod.attach(Some(&inbound));
        assert_eq!(
            (are_open(pod, open), are_open(pod, closed)),
            ([true; 2], [false; 2])
        );
        let mut ports = datapath.session().app_ports().expect("ports");
        assert_eq!(
            (are_open(pod, open), are_open(pod, closed)),
            ([true; 2], [false; 2])
        );
        drop(older);
        set(&mut ports, &[]);
        assert_eq!(are_open(pod, open), [false; 2], "it is found no more");
    });
}

#[test]
fn a_listener_that_ends_while_user_space_looks_closes_its_port_at_once() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let datapath = attached(pod, &inbound, &[]);
        let app = listener(Domain::IPV6);
        let port = app.local_addr().unwrap().port();
        let mut ports = datapath.session().app_ports().expect("ports");
        let (seen, mut app) = (found(&app), Some(app));
        // Seen once, and gone when the programs are asked whether they count it.
        let look = || Ok::<_, Error>(app.take().map(|_| seen).into_iter().collect());
        ports.set(look).expect("set");
        assert_eq!(are_open(pod, port), [false; 2]);
    });
}

#[test]
fn only_the_last_of_a_group_closes_the_port() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let first = shared(0);
        let port = first.local_addr().unwrap().port();
        // One from before the programs, two from after.
        let datapath = pod.attach(Some(&inbound));
        let mut ports = datapath.session().app_ports().expect("ports");
        let (second, third) = (shared(port), shared(port));
        set(&mut ports, &[&first, &second, &third].map(found));
        drop(second);
        assert!(is_open(pod, POD4, port));
        drop(first);
        set(&mut ports, &[found(&third)]);
        assert!(is_open(pod, POD4, port));
        drop(third);
        assert!(!is_open(pod, POD4, port));
    });
}

#[test]
fn a_listener_counts_only_for_the_addresses_that_reach_it() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let before = ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[fd99::2]:0"].map(bound);
        let datapath = attached(pod, &inbound, &before.each_ref().map(found));
        let after = ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[fd99::2]:0"].map(bound);
        for sockets in [&before, &after] {
            let open = sockets.each_ref().map(|socket| {
                let port = socket.local_addr().unwrap().port();
                (is_open(pod, POD4, port), is_open(pod, POD6, port))
            });
            assert_eq!(
                open,
                [(false, false), (false, false), (true, false), (false, true)]
            );
        }
        assert_eq!(counter(&datapath, "steered"), 4);
    });
}

#[test]
fn the_proxy_that_takes_over_goes_on_counting() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let old = listener(Domain::IPV6);
        let datapath = attached(pod, &inbound, &[found(&old)]);
        let new = listener(Domain::IPV6);
        drop(datapath);
        let (old_port, new_port) = [&old, &new].map(|l| l.local_addr().unwrap().port()).into();
        // Ends while no proxy is there.
        drop(old);
        let datapath = attached(pod, &inbound, &[found(&new)]);
        assert!(!is_open(pod, POD4, old_port));
        assert!(is_open(pod, POD4, new_port));
        drop(new);
        assert!(!is_open(pod, POD4, new_port), "at once");
        drop(datapath);
    });
}

/// As after a look that finds these.
pub(super) fn set(ports: &mut AppPorts, listening: &[Listening]) {
    ports.set(|| Ok::<_, Error>(listening.to_vec())).expect("set");
}

pub(super) fn attached(pod: &Pod, inbound: &TcpListener, listening: &[Listening]) -> Datapath {
    let datapath = pod.attach(Some(inbound));
    let mut ports = datapath.session().app_ports().expect("ports");
    set(&mut ports, listening);
    datapath
}

/// Whether an outsider gets a connection; who serves it is not asked.
pub(super) fn is_open(pod: &Pod, own: &str, port: u16) -> bool {
    let to = SocketAddr::new(own.parse().expect("an address"), port);
    match pod.outsider(to).connect(&to.into()) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => false,
        Err(error) => panic!("{to}: {error}"),
    }
}

/// Whether one does at the pod's addresses, IPv4 first.
pub(super) fn are_open(pod: &Pod, port: u16) -> [bool; 2] {
    [POD4, POD6].map(|own| is_open(pod, own, port))
}

/// As a look at the sockets of the pod would find it.
pub(super) fn found(listener: &TcpListener) -> Listening {
    Listening {
        cookie: sys::socket_cookie(listener.as_fd()).expect("a cookie"),
        at: listener.local_addr().expect("bound"),
        cgroup: Some(own_cgroup()),
    }
}

fn bound(at: &str) -> TcpListener {
    TcpListener::bind(address(at)).expect("bind")
}

/// One of an SO_REUSEPORT group.
fn shared(port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.set_reuse_port(true).expect("reuse");
    socket
        .bind(&SocketAddr::from(([0, 0, 0, 0], port)).into())
        .expect("bind");
    socket.listen(16).expect("listen");
    socket.into()
}
