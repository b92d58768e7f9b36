//! Facts about a pod that is attached, from redirection to detachment.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use aya::maps::{HashMap, Map, MapData};
use sidecar_ebpf::abi::map;
use socket2::{Domain, SockRef, Socket, Type};

use super::super::{Config, Datapath, Error, check, detach, pins};
use super::pod::{POD4, POD6, Pod, eventually, in_pod};

/// Nobody has these: only redirection gets a connection anywhere.
const FAR4: &str = "203.0.113.7:80";
const FAR6: &str = "[2001:db8::7]:80";
const FAR_MAPPED: &str = "[::ffff:203.0.113.8]:81";

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
        assert_eq!(handshakes(pod), 0, "every entry was claimed");
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
        assert_eq!(handshakes(pod), 0);
    });
}

#[test]
fn somebody_who_dials_the_outbound_port_has_no_original_destination() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let datapath = pod.attach(None);
        let _app = TcpStream::connect(("127.0.0.1", pod.config.outbound_port)).expect("connect");
        let (accepted, _) = outbound.accept().expect("accept");
        assert_eq!(original_dst(&accepted), None);
        assert_eq!(counter(&datapath, "unclaimed"), 1);
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
        let bypass = datapath.bypass();
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
fn a_socket_bound_to_a_device_passes_or_is_denied_in_strict() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let to = pod.neighbour4.local_addr().unwrap();
        let bound = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind_device(Some(b"eth0")).expect("bind to device");
            socket
        };
        bound().connect(&to.into()).expect("it passes");
        pod.neighbour4.accept().expect("accept");
        datapath.set_strict(true).expect("strict");
        let denied = bound().connect(&to.into()).unwrap_err();
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(counter(&datapath, "denied_device"), 1);
    });
}

#[test]
fn plaintext_from_outside_reaches_the_inbound_listener() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let app = listener(Domain::IPV6);
        let port = app.local_addr().unwrap().port();
        let datapath = pod.attach(Some(&inbound));
        for ip in [POD4, POD6] {
            let to = SocketAddr::new(ip.parse().unwrap(), port);
            let outsider = pod.outsider(to);
            outsider.connect(&to.into()).expect("steered");
            let (accepted, client) = inbound.accept().expect("accept");
            assert_eq!(
                canonical(accepted.local_addr().unwrap()),
                to,
                "the app's address and port"
            );
            let own = outsider.local_addr().unwrap().as_socket().unwrap();
            assert_eq!(canonical(client), own, "the true client");

            // From inside the pod, the app itself answers.
            let inside = TcpStream::connect(to).expect("connect");
            let (_, client) = app.accept().expect("accept");
            assert_eq!(canonical(client), inside.local_addr().unwrap());
        }
        assert_eq!(counter(&datapath, "steered"), 2);
    });
}

#[test]
fn open_ports_pass_and_intercept_ports_are_closed_to_outsiders() {
    in_pod(|pod| {
        let (inbound, _outbound) = (pod.inbound(), pod.outbound());
        let mesh = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 15008)).expect("listen");
        let datapath = pod.attach(Some(&inbound));
        for strict in [false, true] {
            datapath.set_strict(strict).expect("mode");
            for ip in [POD4, POD6] {
                let at = |port| SocketAddr::new(ip.parse().unwrap(), port);
                pod.outsider(at(15008)).connect(&at(15008).into()).expect("open");
                mesh.accept().expect("accept");
                for port in [15001, 15006] {
                    let refused = pod.outsider(at(port)).connect(&at(port).into()).unwrap_err();
                    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{ip} {port}");
                }
            }
        }
        assert_eq!(counter(&datapath, "dropped_port"), 8);
    });
}

#[test]
fn strict_refuses_plaintext_from_outside_until_it_is_lifted() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let app = listener(Domain::IPV6);
        let to = SocketAddr::new(POD4.parse().unwrap(), app.local_addr().unwrap().port());
        let strict = Config {
            strict: true,
            ..pod.config.clone()
        };
        let datapath = Datapath::attach(&strict, Some(inbound.as_fd())).expect("attach");
        let refused = pod.outsider(to).connect(&to.into()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(counter(&datapath, "dropped_strict"), 1);

        datapath.set_strict(false).expect("permissive");
        pod.outsider(to).connect(&to.into()).expect("steered");
        inbound.accept().expect("accept");
    });
}

#[test]
fn after_a_kill_everything_is_refused_and_a_restart_serves_again() {
    in_pod(|pod| {
        let app = listener(Domain::IPV6);
        let inward = SocketAddr::new(POD4.parse().unwrap(), app.local_addr().unwrap().port());
        let outward = pod.neighbour4.local_addr().unwrap();
        let proxy = pod.spawn_proxy();
        TcpStream::connect(outward).expect("the proxy accepts");
        pod.outsider(inward)
            .connect(&inward.into())
            .expect("the proxy accepts");

        proxy.kill();
        let refused = |result: io::Result<()>, what| {
            assert_eq!(
                result.unwrap_err().kind(),
                io::ErrorKind::ConnectionRefused,
                "{what}"
            );
        };
        refused(TcpStream::connect(outward).map(drop), "outward");
        refused(pod.outsider(inward).connect(&inward.into()), "inward");

        let (outbound, inbound) = (pod.outbound(), pod.inbound());
        let datapath = pod.attach(Some(&inbound));
        let _app = TcpStream::connect(outward).expect("outward again");
        let (accepted, _) = outbound.accept().expect("accept");
        assert_eq!(original_dst(&accepted), Some(outward));
        pod.outsider(inward)
            .connect(&inward.into())
            .expect("inward again");
        inbound.accept().expect("accept");
        assert!(counter(&datapath, "redirected") >= 3, "the maps were kept");
    });
}

#[test]
fn while_programs_are_replaced_no_connection_escapes() {
    in_pod(|pod| {
        let _outbound = pod.outbound();
        let first = pod.attach(None);
        let to = pod.neighbour4.local_addr().unwrap();
        let done = AtomicBool::new(false);
        let mut attempts = 0_u32;
        thread::scope(|scope| {
            let dialler = scope.spawn(|| {
                let mut n = 0_u32;
                while !done.load(Relaxed) {
                    // The backlog fills up at times; what must not happen is that the neighbour is reached.
                    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    socket.set_nonblocking(true).unwrap();
                    let _ = socket.connect(&to.into());
                    n += 1;
                }
                n
            });
            drop(first);
            for round in 0..6 {
                // Every other time with other settings, and so with new maps.
                let config = Config {
                    open_ports: vec![15008, 16000 + round / 2],
                    ..pod.config.clone()
                };
                Datapath::attach(&config, None).expect("attach again");
            }
            done.store(true, Relaxed);
            attempts = dialler.join().unwrap();
        });
        assert!(attempts > 100, "{attempts} attempts");
        pod.neighbour4.set_nonblocking(true).unwrap();
        let escaped = pod.neighbour4.accept().map(|(_, client)| client);
        assert_eq!(
            escaped.unwrap_err().kind(),
            io::ErrorKind::WouldBlock,
            "one reached the neighbour"
        );
    });
}

#[test]
fn detaching_sets_the_pod_free_and_leaves_no_file() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let to = pod.neighbour6.local_addr().unwrap();
        TcpStream::connect(to).expect_err("nobody listens for redirected connections");
        let removed = detach(&pod.config.pins).expect("detach");
        assert!(
            removed.iter().any(|path| path.ends_with("or_connect6")),
            "{removed:?}"
        );
        assert!(!pod.config.pins.exists());
        TcpStream::connect(to).expect("directly");
        pod.neighbour6.accept().expect("accept");
        assert_eq!(
            counter(&datapath, "redirected"),
            1,
            "the programs ran once, before"
        );
        assert!(detach(&pod.config.pins).expect("again").is_empty());
    });
}

#[test]
fn pins_that_hold_another_pod_are_not_taken_over() {
    in_pod(|pod| {
        let _datapath = pod.attach(None);
        let other = Config {
            cgroup: pod.config.cgroup.join("other"),
            ..pod.config.clone()
        };
        std::fs::create_dir(&other.cgroup).expect("a cgroup");
        let error = Datapath::attach(&other, None).map(drop).unwrap_err();
        assert!(matches!(error, Error::OtherTarget { .. }), "{error}");
        std::fs::remove_dir(&other.cgroup).expect("clean up");
        TcpStream::connect(FAR4).expect_err("the first pod is still intercepted");
    });
}

#[test]
fn pins_whose_cgroup_is_gone_are_replaced() {
    in_pod(|pod| {
        let _outbound = pod.outbound();
        let gone = Config {
            cgroup: pod.config.cgroup.join("gone"),
            ..pod.config.clone()
        };
        std::fs::create_dir(&gone.cgroup).expect("a cgroup");
        drop(Datapath::attach(&gone, None).expect("attach"));
        std::fs::remove_dir(&gone.cgroup).expect("it goes");
        // The kernel severs the links of a dead cgroup in its own time.
        eventually("the links are severed", || {
            Datapath::attach(&pod.config, None).is_ok()
        });
        TcpStream::connect(FAR4).expect("redirected");
    });
}

#[test]
fn a_failed_attachment_leaves_nothing_behind() {
    in_pod(|pod| {
        let not_a_listener = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let error = Datapath::attach(&pod.config, Some(not_a_listener.as_fd()))
            .map(drop)
            .unwrap_err();
        assert!(error.to_string().contains(map::LISTENERS), "{error}");
        assert!(!pod.config.pins.exists());
        pod.neighbour4
            .local_addr()
            .and_then(TcpStream::connect)
            .expect("not intercepted");
    });
}

#[test]
fn whoever_attached_exclusively_is_named() {
    in_pod(|pod| {
        let exclusive = super::super::links::attach_exclusively(&pod.config.cgroup);
        let error = Datapath::attach(&pod.config, None)
            .map(drop)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("or_connect4` is attached exclusively to"),
            "{error}"
        );
        assert!(error.contains(pod.config.cgroup.to_str().unwrap()), "{error}");
        assert!(!pod.config.pins.exists());
        drop(exclusive);
    });
}

#[test]
fn wrong_directories_are_refused_with_their_names() {
    in_pod(|pod| {
        let pins = Config {
            pins: std::env::temp_dir().join("outrigger-not-bpffs"),
            ..pod.config.clone()
        };
        let error = Datapath::attach(&pins, None).map(drop).unwrap_err();
        assert!(
            matches!(&error, Error::NotBpffs { path } if *path == pins.pins),
            "{error}"
        );
        let cgroup = Config {
            cgroup: std::env::temp_dir(),
            ..pod.config.clone()
        };
        let error = Datapath::attach(&cgroup, None).map(drop).unwrap_err();
        assert!(
            matches!(&error, Error::NotCgroup2 { path } if *path == cgroup.cgroup),
            "{error}"
        );
    });
}

#[test]
fn the_programs_log_reaches_tracing_at_debug_level() {
    in_pod(|pod| {
        let log = super::capture::Capture::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let lines = log.lines.clone();
        tracing::subscriber::with_default(log, || {
            let _outbound = pod.outbound();
            let mut datapath = pod.attach(None);
            let logs = datapath.logs().expect("debug level is on");
            TcpStream::connect(FAR4).expect("connect");
            runtime.block_on(async {
                tokio::select! {
                    ended = logs.run() => panic!("{ended:?}"),
                    () = lines.wait_for("connect to ::ffff:203.0.113.7 port 80 redirected") => {}
                }
            });
        });
    });
}

#[test]
fn without_debug_level_there_is_no_log_to_read() {
    in_pod(|pod| assert!(pod.attach(None).logs().is_none()));
}

#[test]
fn this_host_is_fit() {
    in_pod(|_| {
        for finding in check() {
            assert!(
                finding.ok,
                "{}: {}; {}",
                finding.name, finding.detail, finding.remedy
            );
        }
    });
}

#[test]
fn handles_may_go_to_other_threads() {
    fn handle<T: Send + Sync + Clone>() {}
    fn moved<T: Send>() {}
    handle::<super::super::Bypass>();
    moved::<Datapath>();
    moved::<super::super::Logs>();
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// As the proxy asks: both levels, whatever the socket's own family.
fn original_dst(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let answer = socket
        .original_dst_v4()
        .or_else(|_| socket.original_dst_v6())
        .ok()?;
    answer.as_socket()
}

fn counter(datapath: &Datapath, name: &str) -> u64 {
    let counters = datapath.counters().expect("counters");
    counters
        .into_iter()
        .find(|(known, _)| *known == name)
        .expect("a known counter")
        .1
}

/// Entries in the handshake map.
fn handshakes(pod: &Pod) -> usize {
    let path = pins::maps(&pod.config.pins).join(map::HANDSHAKE);
    let map = Map::LruHashMap(MapData::from_pin(path).expect("the pinned map"));
    HashMap::<_, [u8; 48], [u8; 32]>::try_from(map)
        .expect("its shape")
        .keys()
        .count()
}

fn listener(domain: Domain) -> TcpListener {
    let socket = Socket::new(domain, Type::STREAM, None).expect("socket");
    if domain == Domain::IPV6 {
        socket.set_only_v6(false).expect("dual stack");
    }
    socket
        .bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())
        .expect("bind");
    socket.listen(128).expect("listen");
    socket.into()
}
