//! Facts about connections that leave the pod.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use sidecar_ebpf::abi::{PENDING_ENTRIES, Pending, REDIRECT4_PORT, SPREAD6_FIRST, Tuple, map};
use socket2::{Domain, SockRef, Socket, Type};

use super::pod::{POD4, POD6, in_pod};
use super::probe::{FAR_MAPPED, FAR4, FAR6, address, canonical, counter, listener, original_dst, pending};

#[test]
fn a_connect_is_redirected_and_the_proxy_learns_where_it_was_going() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let _datapath = pod.attach(None);
        for far in [FAR4, FAR6, FAR_MAPPED] {
            let asked = address(far);
            let app = TcpStream::connect(asked).unwrap_or_else(|e| panic!("{far}: {e}"));
            let (accepted, client) = outbound.accept().expect("accept");

            assert_eq!(original_dst(&accepted), Some(canonical(asked)), "{far}");
            assert_eq!(app.peer_addr().unwrap(), asked, "the app sees what it asked for");
            assert_eq!(
                original_dst(&app),
                None,
                "{far}: no answer on the app's own socket"
            );
            let own = canonical(app.local_addr().unwrap());
            assert_eq!(canonical(client), own, "{far}: accept() names the client");
            assert_eq!(canonical(accepted.peer_addr().unwrap()), own, "{far}");
            assert!(
                accepted.local_addr().unwrap().ip().to_canonical().is_loopback(),
                "{far}"
            );
        }
    });
}

#[test]
fn a_destination_is_kept_per_connection_when_many_are_open() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let datapath = pod.attach(None);
        let mut apps = Vec::new();
        for n in 0..500_u16 {
            let asked = SocketAddr::new(Ipv4Addr::new(203, 0, 113, n as u8).into(), 1000 + n);
            let app = TcpStream::connect(asked).expect("connect");
            let (accepted, _) = outbound.accept().expect("accept");
            assert_eq!(original_dst(&accepted), Some(asked));
            apps.push((app, accepted));
        }
        assert_eq!(counter(&datapath, "claimed"), 500);
        assert_eq!(counter(&datapath, "redirected"), 500);
        assert_eq!(pending(pod), 0, "every entry was claimed");
    });
}

#[test]
fn one_source_port_serves_for_several_ipv6_destinations() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let _datapath = pod.attach(None);
        let mut apps = Vec::new();
        for n in 0..20 {
            let asked = address(&format!("[2001:db8:{n}::7]:80"));
            let app = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
            app.set_reuse_address(true).expect("reuse");
            app.bind(&address("[fd99::2]:4711").into()).expect("bind");
            app.connect(&asked.into())
                .unwrap_or_else(|e| panic!("{asked}: {e}"));
            let (accepted, client) = outbound.accept().expect("accept");
            assert_eq!(original_dst(&accepted), Some(asked));
            assert_eq!(client.port(), 4711);
            apps.push((app, accepted));
        }
    });
}

#[test]
fn a_program_that_listens_on_a_port_of_the_spread_keeps_its_connections() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let datapath = pod.attach(None);
        let app = TcpStream::connect(FAR6).expect("connect");
        let (redirected, _) = outbound.accept().expect("accept");
        let port = redirected.local_addr().unwrap().port();
        assert!(port >= SPREAD6_FIRST, "{port}");
        // As every server does, it shares its port with connections that there are.
        let own = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).expect("listen");
        let _caller = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("connect");
        let (served, _) = own.accept().expect("its own caller");
        assert_eq!(original_dst(&served), None);
        let again = TcpStream::connect(FAR6).expect("connect");
        let (accepted, _) = outbound.accept().expect("redirected as before");
        assert_eq!(original_dst(&accepted), Some(address(FAR6)));
        assert_eq!(counter(&datapath, "unclaimed"), 0);
        drop((app, again));
    });
}

#[test]
fn a_socket_that_connects_again_is_redirected_to_where_it_goes_now() {
    in_pod(|pod| {
        let local = TcpListener::bind("127.0.0.1:0").expect("listen");
        let first = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let _datapath = pod.attach(None);
        // Nobody listens yet: refused, and the socket may be used again.
        let refused = first.connect(&address(FAR4).into()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let outbound = pod.outbound();
        first.connect(&address("203.0.113.9:90").into()).expect("connect");
        let (accepted, _) = outbound.accept().expect("accept");
        assert_eq!(original_dst(&accepted), Some(address("203.0.113.9:90")));

        let second = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        drop(outbound);
        second.connect(&address(FAR4).into()).unwrap_err();
        let to = local.local_addr().unwrap();
        second.connect(&to.into()).expect("connect to loopback");
        assert_eq!(
            second.peer_addr().unwrap().as_socket(),
            Some(to),
            "the old destination is forgotten"
        );
    });
}

#[test]
fn a_refused_connect_leaves_nothing_behind() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        for far in [FAR4, FAR6, FAR_MAPPED] {
            let refused = TcpStream::connect(far).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{far}");
        }
        assert_eq!(counter(&datapath, "redirected"), 3);
        assert_eq!(pending(pod), 0);
    });
}

#[test]
fn somebody_who_dials_where_others_are_redirected_to_is_refused() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let listener = outbound.local_addr().unwrap();
        let datapath = pod.attach(None);
        let refused = |to: SocketAddr| {
            let refused = TcpStream::connect(to).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{to}");
        };
        refused(SocketAddr::from(([127, 64, 0, 9], REDIRECT4_PORT)));
        assert_eq!(counter(&datapath, "unclaimed"), 1);
        refused(listener);
        refused(canonical(listener));
        assert_eq!(counter(&datapath, "dropped_port"), 2);
        outbound.set_nonblocking(true).expect("nonblocking");
        assert_eq!(outbound.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    });
}

/// The kernel joins sockets of one port and one uid that both set SO_REUSEPORT, and spreads connections over them.
#[test]
fn a_program_that_joins_the_listeners_port_gets_no_connection() {
    in_pod(|pod| {
        let (outbound, inbound) = (pod.outbound(), pod.inbound());
        for listener in [&*outbound, &inbound] {
            SockRef::from(listener).set_reuse_port(true).expect("reuse");
            // A connection that is there can be accepted at once.
            listener.set_nonblocking(true).expect("nonblocking");
        }
        let _datapath = pod.attach(Some(&inbound));
        let app = listener(Domain::IPV6);
        let to = SocketAddr::new(POD4.parse().unwrap(), app.local_addr().unwrap().port());
        let intruders = [&*outbound, &inbound].map(|listener| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
            socket.set_only_v6(false).expect("dual stack");
            socket.set_reuse_port(true).expect("reuse");
            socket.set_nonblocking(true).expect("nonblocking");
            socket
                .bind(&listener.local_addr().unwrap().into())
                .expect("it is shared");
            socket.listen(128).expect("listen");
            socket
        });
        for _ in 0..10 {
            for far in [FAR4, FAR6, FAR_MAPPED] {
                let _app = TcpStream::connect(far).expect("connect");
                let (accepted, _) = outbound.accept().expect("the proxy's");
                assert_eq!(original_dst(&accepted), Some(canonical(address(far))));
            }
        }
        pod.outsider(to).connect(&to.into()).expect("steered");
        inbound.accept().expect("the proxy's");
        for intruder in intruders {
            assert!(intruder.accept().is_err(), "nothing for the intruder");
        }
    });
}

/// Where it goes would be lost.
#[test]
fn a_connect_that_cannot_be_published_fails_and_its_socket_is_as_before() {
    in_pod(|pod| {
        let _outbound = pod.outbound();
        let datapath = pod.attach(None);
        let map = pod.map(map::PENDING).expect("the pinned map");
        let junk = |n| Tuple {
            reserved: n,
            ..bytemuck::Zeroable::zeroed()
        };
        let value: Pending = bytemuck::Zeroable::zeroed();
        for n in 1..=PENDING_ENTRIES as u32 {
            map.set(&junk(n), &value).expect("room");
        }
        let sockets = [(FAR4, Domain::IPV4), (FAR6, Domain::IPV6)].map(|(far, domain)| {
            let socket = Socket::new(domain, Type::STREAM, None).expect("socket");
            let failed = socket.connect(&address(far).into()).unwrap_err();
            assert_eq!(failed.raw_os_error(), Some(nix::libc::EHOSTUNREACH), "{far}");
            assert_eq!(socket.device().expect("a device"), None, "{far}: bound to none");
            (socket, far)
        });
        assert_eq!(counter(&datapath, "publish_failed"), 2);
        for n in 1..=PENDING_ENTRIES as u32 {
            assert!(map.remove(&junk(n)).expect("an answer"), "it is there");
        }
        for (socket, far) in sockets {
            socket.connect(&address(far).into()).expect("there is room again");
        }
    });
}

#[test]
fn loopback_and_the_pods_own_addresses_are_left_alone() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let everywhere = listener(Domain::IPV6);
        let port = everywhere.local_addr().unwrap().port();
        for ip in [
            "127.0.0.1",
            "127.3.2.1",
            "0.0.0.0",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            POD4,
            POD6,
        ] {
            TcpStream::connect((ip, port)).unwrap_or_else(|e| panic!("{ip}: {e}"));
            let (accepted, _) = everywhere.accept().expect("accept");
            assert_eq!(original_dst(&accepted), None, "{ip}");
        }
        assert_eq!(counter(&datapath, "redirected"), 0);
        assert_eq!(counter(&datapath, "passed_local"), 8);
    });
}

#[test]
fn a_marked_socket_goes_where_it_wants() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let datapath = pod.attach(None);
        let bypass = datapath.session().bypass();
        for (neighbour, own) in [(&pod.neighbour4, POD4), (&pod.neighbour6, POD6)] {
            let to = neighbour.local_addr().unwrap();
            let marked = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
            bypass.mark(marked.as_fd()).expect("mark");
            marked.connect(&to.into()).expect("connect");
            let (_, client) = neighbour.accept().expect("the neighbour sees it");
            assert_eq!(client.ip(), own.parse::<IpAddr>().unwrap());

            let _unmarked = TcpStream::connect(to).expect("connect");
            let (accepted, _) = outbound.accept().expect("the proxy sees it");
            assert_eq!(original_dst(&accepted), Some(to));
        }
        assert_eq!(counter(&datapath, "passed_bypass"), 2);
    });
}

#[test]
fn a_socket_bound_to_a_device_is_redirected_and_still_sees_its_binding() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let to = pod.neighbour4.local_addr().unwrap();
        let bound = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind_device(Some(b"eth0")).expect("bind to device");
            socket
        };
        let device = |socket: &Socket| socket.device().expect("its device");

        let (again, passed) = (bound(), bound());
        for socket in [&again, &passed] {
            socket.connect(&to.into()).expect_err("nobody listens yet");
            assert_eq!(device(socket).as_deref(), Some(&b"eth0"[..]));
        }
        let outbound = pod.outbound();
        again.connect(&to.into()).expect("connect");
        let (accepted, _) = outbound.accept().expect("the proxy sees it");
        assert_eq!(original_dst(&accepted), Some(to));
        assert_eq!(device(&again).as_deref(), Some(&b"eth0"[..]));
        assert_eq!(
            device(&SockRef::from(&accepted)),
            None,
            "the proxy's end is its own"
        );

        // What is left alone is bound as before.
        let bypass = datapath.session().bypass();
        bypass.mark(passed.as_fd()).expect("mark");
        passed.connect(&to.into()).expect("connect");
        pod.neighbour4.accept().expect("the neighbour sees it");
        assert_eq!(device(&passed).as_deref(), Some(&b"eth0"[..]));
    });
}

/// The kernel lets nobody without CAP_NET_RAW take a binding off again, and the hook acts for the application.
#[test]
fn a_socket_that_an_unprivileged_application_has_bound_to_a_device_passes_or_is_denied_in_strict() {
    in_pod(|pod| {
        let _outbound = pod.outbound();
        let datapath = pod.attach(None);
        let to = pod.neighbour4.local_addr().unwrap();
        let nobody = nix::unistd::Uid::from_raw(65534);
        nix::unistd::seteuid(nobody).expect("become nobody");
        let bound = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind_device(Some(b"eth0")).expect("bind to device");
            socket
        };
        let passed = bound().connect(&to.into());
        nix::unistd::seteuid(nix::unistd::Uid::from_raw(0)).expect("become root again");
        datapath.session().set_strict(true).expect("strict");
        nix::unistd::seteuid(nobody).expect("become nobody");
        let denied = bound().connect(&to.into());
        nix::unistd::seteuid(nix::unistd::Uid::from_raw(0)).expect("become root again");

        passed.expect("it passes");
        pod.neighbour4.accept().expect("the neighbour sees it");
        let denied = denied.expect_err("it would pass the proxy by");
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(
            [
                counter(&datapath, "passed_device"),
                counter(&datapath, "denied_device")
            ],
            [1, 1]
        );
    });
}

#[test]
fn a_link_local_destination_is_denied_in_strict() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        datapath.session().set_strict(true).expect("strict");
        let denied =
            TcpStream::connect("[fe80::1%2]:80".parse::<SocketAddr>().expect("an address")).unwrap_err();
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(counter(&datapath, "denied_device"), 1);
    });
}
