//! Facts about connections to where this host has no route, and about the address that one is sent from.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream};

use ipnet::IpNet;
use nix::libc;
use socket2::{Domain, Socket, Type};

use super::pod::in_pod;
use super::probe::{address, counter};
use crate::model::network::Path;

#[test]
fn connect_fails_at_once_as_the_path_says() {
    in_pod(|pod| {
        let _outbound = pod.outbound();
        let datapath = pod.attach(None);
        let mut routes = datapath.session().routes().expect("routes");
        routes
            .set(&paths(&[
                ("203.0.0.0/8", Path::Fails(113)),
                ("203.0.113.0/24", Path::From(ip("10.99.0.2"))),
                ("203.0.113.128/25", Path::Fails(13)),
                ("203.0.113.255/32", Path::Fails(22)),
                ("2001:db8::/32", Path::Fails(113)),
                ("2001:db8:1::/48", Path::From(ip("fd99::2"))),
            ]))
            .expect("set");
        let cases = [
            ("203.5.0.1:80", 113),
            ("203.0.113.7:80", 0),
            ("203.0.113.200:80", 13),
            ("203.0.113.255:80", 22),
            ("[::ffff:203.5.0.1]:80", 113),
            ("[::ffff:203.0.113.200]:80", 13),
            ("[2001:db8::7]:80", 113),
            ("[2001:db8:1::7]:80", 0),
            // Nobody has said anything about these.
            ("198.51.100.1:80", 101),
            ("[2a00::1]:80", 101),
        ];
        for complete in [false, true, false] {
            routes.complete(complete).expect("complete");
            for (to, errno) in cases {
                let errno = if complete { errno } else { 0 };
                assert_eq!(blocking(to), errno, "{to} {complete}");
                let pending = if errno == 0 { libc::EINPROGRESS } else { errno };
                assert_eq!(nonblocking(to), pending, "{to} {complete}");
            }
        }
        assert_eq!(counter(&datapath, "failed_route"), 16);
    });
}

#[test]
fn a_client_sees_the_address_that_the_kernel_would_send_from() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let datapath = pod.attach(None);
        let mut routes = datapath.session().routes().expect("routes");
        routes
            .set(&paths(&[
                ("203.0.113.0/24", Path::From(ip("10.99.0.2"))),
                ("203.0.113.8/32", Path::From(ip("192.0.2.77"))),
                ("2001:db8::/32", Path::From(ip("fd99::2"))),
            ]))
            .expect("set");
        for (to, source) in [
            ("203.0.113.7:80", "10.99.0.2"),
            ("203.0.113.8:80", "192.0.2.77"),
            ("[::ffff:203.0.113.8]:80", "::ffff:192.0.2.77"),
            ("[2001:db8::7]:80", "fd99::2"),
        ] {
            let app = TcpStream::connect(to).expect("connect");
            let (_, client) = outbound.accept().expect("accept");
            assert_eq!(
                app.local_addr().unwrap(),
                SocketAddr::new(ip(source), client.port())
            );
        }
    });
}

#[test]
fn paths_are_replaced_while_they_are_in_force() {
    in_pod(|pod| {
        let _outbound = pod.outbound();
        let datapath = pod.attach(None);
        let mut routes = datapath.session().routes().expect("routes");
        let way = Path::From(ip("10.99.0.2"));
        routes.set(&paths(&[("203.0.113.0/24", way)])).expect("set");
        routes.complete(true).expect("complete");
        assert_eq!(blocking("203.0.113.7:80"), 0);
        routes
            .set(&paths(&[
                ("203.0.113.0/24", Path::Fails(113)),
                ("0.0.0.0/0", way),
            ]))
            .expect("set");
        assert_eq!(blocking("203.0.113.7:80"), 113);
        assert_eq!(blocking("198.51.100.1:80"), 0);
        routes.set(&paths(&[("0.0.0.0/0", way)])).expect("set");
        assert_eq!(blocking("203.0.113.7:80"), 0);
        routes.set(&BTreeMap::new()).expect("set");
        assert_eq!(blocking("203.0.113.7:80"), 101);
    });
}

#[test]
fn the_next_proxy_begins_with_the_paths_of_the_last_one() {
    in_pod(|pod| {
        let _outbound = pod.outbound();
        let datapath = pod.attach(None);
        let mut routes = datapath.session().routes().expect("routes");
        let way = Path::From(ip("10.99.0.2"));
        let (blocked, gone) = (("203.0.113.0/24", Path::Fails(113)), ("198.51.100.0/24", way));
        routes.set(&paths(&[blocked, gone])).expect("set");
        routes.complete(true).expect("complete");
        drop((routes, datapath));

        let datapath = pod.attach(None);
        let in_force = || ["203.0.113.7:80", "198.51.100.1:80", "192.0.2.1:80"].map(blocking);
        assert_eq!(in_force(), [113, 0, 101], "before it knows any itself");
        let mut routes = datapath.session().routes().expect("routes");
        assert_eq!(in_force(), [113, 0, 101]);
        routes.set(&paths(&[("192.0.0.0/8", way)])).expect("set");
        routes.complete(true).expect("complete");
        assert_eq!(in_force(), [101, 101, 0], "and with none that is no more");
    });
}

fn paths(of: &[(&str, Path)]) -> BTreeMap<IpNet, Path> {
    of.iter()
        .map(|(net, path)| (net.parse().expect("a prefix"), *path))
        .collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn blocking(to: &str) -> i32 {
    let connected = TcpStream::connect(to);
    connected.map_or_else(|error| error.raw_os_error().expect("an errno"), |_| 0)
}

fn nonblocking(to: &str) -> i32 {
    let to = address(to);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
    socket.set_nonblocking(true).expect("nonblocking");
    socket
        .connect(&to.into())
        .map_or_else(|error| error.raw_os_error().expect("an errno"), |()| 0)
}
