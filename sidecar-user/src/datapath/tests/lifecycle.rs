//! Facts about attaching, dying, being replaced and being detached.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use sidecar_ebpf::abi::map;
use socket2::{Domain, Socket, Type};

use super::super::{Bypass, Config, Datapath, Error, Logs, State, Steered, check, detach};
use super::capture::Capture;
use super::pod::{POD4, eventually, in_pod};
use super::probe::{FAR4, address, counter, listener, original_dst};

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
                pod.attach_as(&config, None).expect("attach again");
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
        let removed = detach(&pod.config.pins, true).expect("detach");
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
        assert!(detach(&pod.config.pins, false).expect("again").is_empty());
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
        let error = pod.attach_as(&other, None).map(drop).unwrap_err();
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
        drop(pod.attach_as(&gone, None).expect("attach"));
        std::fs::remove_dir(&gone.cgroup).expect("it goes");
        // The kernel severs the links of a dead cgroup in its own time.
        eventually("the links are severed", || {
            pod.attach_as(&pod.config, None).is_ok()
        });
        TcpStream::connect(FAR4).expect("redirected");
    });
}

#[test]
fn only_a_socket_that_listens_gets_a_slot() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let closed = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        closed.bind(&address("127.0.0.1:0").into()).expect("bind");
        let steered = Steered {
            inbound: Some(closed.as_fd()),
            ..Steered::default()
        };
        let error = datapath.session().steer(0, steered).unwrap_err();
        assert!(error.to_string().contains(map::LISTENERS), "{error}");
        closed.listen(1).expect("listen");
        datapath.session().steer(0, steered).expect("a listener");
    });
}

/// And of an attachment that fails nothing is left behind.
#[test]
fn whoever_attached_exclusively_is_named() {
    in_pod(|pod| {
        let exclusive = super::super::install::links::attach_exclusively(&pod.config.cgroup);
        let error = pod
            .attach_as(&pod.config, None)
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
        let error = pod.attach_as(&pins, None).map(drop).unwrap_err();
        assert!(
            matches!(&error, Error::NotBpffs { path } if *path == pins.pins),
            "{error}"
        );
        let cgroup = Config {
            cgroup: std::env::temp_dir(),
            ..pod.config.clone()
        };
        let error = pod.attach_as(&cgroup, None).map(drop).unwrap_err();
        assert!(
            matches!(&error, Error::NotCgroup2 { path } if *path == cgroup.cgroup),
            "{error}"
        );
    });
}

#[test]
fn the_programs_log_reaches_tracing_at_debug_level() {
    in_pod(|pod| {
        let log = Capture::default();
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
        for finding in check(None, None) {
            assert_eq!(finding.state, State::Ok, "{finding:?}");
        }
    });
}

#[test]
fn handles_may_go_to_other_threads() {
    fn handle<T: Send + Sync + Clone>() {}
    fn moved<T: Send>() {}
    handle::<Bypass>();
    moved::<Datapath>();
    moved::<Logs>();
}
