//! Facts about the policy in the kernel: what it leaves alone, and how it changes.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use sidecar_ebpf::abi::{self, POLICY_ENTRIES, map};
use socket2::{Domain, SockRef};

use super::super::map::Map;
use super::super::policy::fuzz::documented;
use super::super::policy::tests::Dice;
use super::super::policy::{self, Direction, Policy, Source};
use super::super::{Action, Connect};
use super::super::{Config, Datapath, Error};
use super::pod::{POD4, POD6, Pod, in_pod};
use super::probe::{address, canonical, counter, listener, original_dst};

const NEIGHBOUR4: &str = "10.99.0.1";

fn policy(text: &str) -> Policy {
    policy::parse(text).unwrap_or_else(|problems| panic!("{problems}"))
}

fn with(pod: &Pod, policy: Policy) -> Config {
    Config {
        policy,
        ..pod.config.clone()
    }
}

/// Whether a connection goes to the neighbour itself, rather than to the proxy.
fn goes_directly(to: SocketAddr, neighbour: &TcpListener, outbound: &TcpListener) -> bool {
    let _app = TcpStream::connect(to).unwrap_or_else(|e| panic!("{to}: {e}"));
    outbound.set_nonblocking(true).expect("option");
    // Both listeners queue it before connect() returns.
    match outbound.accept() {
        Ok((accepted, _)) => {
            assert_eq!(original_dst(&accepted), Some(canonical(to)));
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{to}");
            neighbour.accept().expect("the neighbour has it");
            true
        }
    }
}

#[test]
fn what_the_policy_names_is_left_alone_and_the_rest_is_taken() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let (at4, at6) = (
            pod.neighbour4.local_addr().unwrap(),
            pod.neighbour6.local_addr().unwrap(),
        );
        let mapped = format!("[::ffff:{NEIGHBOUR4}]:{}", at4.port()).parse().unwrap();
        let cases = |datapath: &Datapath, left: bool, why: &str| {
            for (to, neighbour) in [
                (at4, &pod.neighbour4),
                (mapped, &pod.neighbour4),
                (at6, &pod.neighbour6),
            ] {
                assert_eq!(goes_directly(to, neighbour, &outbound), left, "{to}: {why}");
                let said = datapath
                    .session()
                    .explain()
                    .outbound(6, to)
                    .expect("explained")
                    .action;
                let wanted = match left {
                    true => Action::Leave,
                    false => Action::Take(Connect::NotHeld),
                };
                assert_eq!(said, wanted, "{to}: {why}");
            }
        };
        let all = policy("outbound: [{destinations: [10.99.0.0/16, \"fd99::/64\"], action: leave}]");
        let datapath = pod.attach_as(&with(pod, all), None).expect("attach");
        cases(&datapath, true, "named by its network");
        assert_eq!(counter(&datapath, "passed_policy"), 3);

        let apply = |text: String| datapath.session().policy().apply(&policy(&text)).expect("apply");
        apply(format!(
            "outbound: [{{ports: [{}, {}], action: leave}}]",
            at4.port(),
            at6.port()
        ));
        cases(&datapath, true, "named by its port");
        apply("outbound: [{ports: [1], action: leave}]".into());
        cases(&datapath, false, "another port");
        apply("outbound: [{destinations: [10.98.0.0/16, \"fd99:0:0:1::/64\"], action: leave}]".into());
        cases(&datapath, false, "another network");
        apply(format!(
            "outbound:\n- {{destinations: [10.99.0.0/16, \"fd99::/16\"], action: leave}}\n\
             - {{destinations: [{}, \"{}\"], action: take}}\n",
            at4.ip(),
            at6.ip()
        ));
        cases(&datapath, false, "a host within the network");
    });
}

#[test]
fn the_kernel_finds_what_the_rules_mean() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let mut applied = 0;
        for seed in 0..40 {
            let mut dice = Dice::new(seed);
            let Some(policy) = dice.policy() else {
                continue;
            };
            datapath.session().policy().apply(&policy).expect("apply");
            applied += 1;
            for direction in [Direction::Outbound, Direction::Inbound] {
                let rules = policy.rules(direction);
                for _ in 0..100 {
                    let (ip, port) = dice.question(rules);
                    let (_, rule) = datapath
                        .session()
                        .policy()
                        .explain(direction, ip, port)
                        .expect("lookup");
                    let (_, documented) = documented(rules, ip, port);
                    assert_eq!(
                        rule.as_ref(),
                        documented.map(|number| &rules[number]),
                        "seed {seed}: {direction} {ip} {port}"
                    );
                }
            }
        }
        assert!(applied > 20, "only {applied} of the random policies fit");
    });
}

#[test]
fn link_local_is_left_alone_without_any_file() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let lookup = |direction, ip: &str, port| {
            let (range, rule) = datapath
                .session()
                .policy()
                .explain(direction, ip.parse().unwrap(), port)
                .expect("lookup");
            (range.action, rule.map(|rule| rule.source))
        };
        for (direction, ip) in [
            (Direction::Outbound, "169.254.169.254"),
            (Direction::Outbound, "fd00:ec2::254"),
            (Direction::Inbound, "169.254.7.127"),
        ] {
            let (action, source) = lookup(direction, ip, 80);
            assert_eq!(action, abi::Action::LEAVE, "{ip}");
            assert!(matches!(source, Some(Source::BuiltIn(_))), "{ip}: {source:?}");
        }
        for (direction, ip) in [
            (Direction::Inbound, "169.254.169.254"),
            (Direction::Outbound, "10.0.0.1"),
            (Direction::Outbound, "fd00:ec2::253"),
        ] {
            assert_eq!(lookup(direction, ip, 80), (abi::Action::TAKE, None), "{ip}");
        }
        // In a namespace without such a route the connection fails, and not by the proxy's doing.
        TcpStream::connect("169.254.169.254:80").expect_err("nobody is there");
        assert_eq!(counter(&datapath, "passed_policy"), 1);
        assert_eq!(counter(&datapath, "redirected"), 0);
    });
}

#[test]
fn a_change_takes_effect_at_once_and_no_connection_sees_half_of_it() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let (at4, at6) = (
            pod.neighbour4.local_addr().unwrap(),
            pod.neighbour6.local_addr().unwrap(),
        );
        // Each leaves both neighbours alone, by other rules: there is no moment in which either may be taken.
        let policies = [
            "outbound: [{destinations: [10.99.0.0/16, \"fd99::/64\"], action: leave}]".to_owned(),
            format!(
                "outbound:\n- {{destinations: [10.99.0.1, \"fd99::1\"], ports: [{}, {}], action: leave}}\n\
                 - {{destinations: [10.99.0.0/16, \"fd99::/16\"], action: take}}\n",
                at4.port(),
                at6.port()
            ),
            "outbound: [{action: leave}]".to_owned(),
        ]
        .map(|text| policy(&text));
        let datapath = pod
            .attach_as(&with(pod, policies[0].clone()), None)
            .expect("attach");
        let established = TcpStream::connect(at4).expect("connect");
        let (theirs, _) = pod.neighbour4.accept().expect("accept");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for (at, neighbour) in [(at4, &pod.neighbour4), (at6, &pod.neighbour6)] {
                let stop = &stop;
                neighbour.set_nonblocking(true).expect("option");
                scope.spawn(move || {
                    while !stop.load(Relaxed) {
                        let app = TcpStream::connect(at).expect("connect");
                        // So that ports do not run out.
                        SockRef::from(&app)
                            .set_linger(Some(Duration::ZERO))
                            .expect("option");
                        // Redirected, it never comes here, and the counter below stops it all.
                        while neighbour.accept().is_err() && !stop.load(Relaxed) {
                            thread::yield_now();
                        }
                    }
                });
            }
            // Past 255 generations, which begin again.
            for n in 1..300 {
                let change = datapath.session().policy().apply(&policies[n % 3]);
                if change.is_err() || counter(&datapath, "redirected") != 0 {
                    stop.store(true, Relaxed);
                }
                change.expect("apply");
            }
            stop.store(true, Relaxed);
        });
        assert_eq!(counter(&datapath, "redirected"), 0);
        assert!(
            counter(&datapath, "passed_policy") > 100,
            "connections ran meanwhile"
        );

        pod.neighbour4.set_nonblocking(false).expect("option");

        // What is established goes on when it would be taken now.
        datapath
            .session()
            .policy()
            .apply(&Policy::default())
            .expect("apply");
        assert!(!goes_directly(at4, &pod.neighbour4, &outbound));
        let (mut ours, mut theirs) = (&established, &theirs);
        ours.write_all(b"still here").expect("write");
        let mut text = [0; 10];
        theirs.read_exact(&mut text).expect("read");
        assert_eq!(&text, b"still here");
        assert_eq!(
            entries(pod),
            Policy::default().prefixes().len(),
            "old generations are gone"
        );
    });
}

#[test]
fn what_policy_leaves_alone_inbound_reaches_the_application_in_strict_too() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let (open, closed) = (listener(Domain::IPV6), listener(Domain::IPV6));
        let port = |app: &TcpListener| app.local_addr().unwrap().port();
        let text = format!(
            "inbound: [{{sources: [10.99.0.0/24, \"fd99::/64\"], ports: [{}], action: leave}}]",
            port(&open)
        );
        let datapath = pod
            .attach_as(&with(pod, policy(&text)), Some(&inbound))
            .expect("attach");
        for strict in [false, true] {
            datapath.session().set_strict(strict).expect("mode");
            for ip in [POD4, POD6] {
                let ip: IpAddr = ip.parse().unwrap();
                let to = SocketAddr::new(ip, port(&open));
                let outsider = pod.outsider(to);
                outsider.connect(&to.into()).expect("left alone");
                let (_, client) = open.accept().expect("the application has it");
                let own = outsider.local_addr().unwrap().as_socket().unwrap();
                assert_eq!(canonical(client), own);
                assert_eq!(
                    datapath
                        .session()
                        .explain()
                        .inbound(6, own.ip(), to)
                        .expect("explained")
                        .action,
                    Action::Leave
                );

                let to = SocketAddr::new(ip, port(&closed));
                let said = datapath
                    .session()
                    .explain()
                    .inbound(6, own.ip(), to)
                    .expect("explained");
                match pod.outsider(to).connect(&to.into()) {
                    Ok(()) => {
                        assert!(!strict, "{to}");
                        inbound.accept().expect("steered");
                        assert_eq!(said.action, Action::Take(Connect::NotHeld));
                    }
                    Err(error) => {
                        assert_eq!((strict, error.kind()), (true, io::ErrorKind::ConnectionRefused));
                        assert_eq!((said.action, said.counter), (Action::Refuse, "dropped_strict"));
                    }
                }
            }
        }
        assert_eq!(counter(&datapath, "inbound_passed_policy"), 4);
    });
}

#[test]
fn a_full_map_leaves_the_old_policy_in_force() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let to = pod.neighbour4.local_addr().unwrap();
        let first = policy("outbound: [{destinations: [10.99.0.0/16], action: leave}]");
        let before = first.prefixes().len();
        let datapath = pod.attach_as(&with(pod, first), None).expect("attach");
        let fill: Vec<String> = (0..POLICY_ENTRIES / 2 - 7)
            .map(|n| format!("10.{}.{}.0/24", n / 256, n % 256))
            .collect();
        let large = policy(&format!(
            "outbound: [{{destinations: [{}], action: take}}]",
            fill.join(", ")
        ));
        datapath
            .session()
            .policy()
            .apply(&large)
            .expect("the largest that fits");
        assert!(!goes_directly(to, &pod.neighbour4, &outbound), "taken");
        let filled = large.prefixes().len();

        // More than anybody may write, of the generation in force, so that it is not swept away before.
        let map = pinned(pod);
        let foreign: Vec<String> = (0..POLICY_ENTRIES / 2 - 7)
            .map(|n| format!("11.{}.{}.0/24", n / 256, n % 256))
            .collect();
        let foreign = policy(&format!(
            "outbound: [{{destinations: [{}], action: take}}]",
            foreign.join(", ")
        ));
        for prefix in foreign.prefixes() {
            // As many as go in.
            let key = policy::Key::new(2, prefix.direction, prefix.net);
            let _ = map.set(&key, &prefix.policy);
        }
        let full = entries(pod);
        assert!(full > filled && full > POLICY_ENTRIES - filled);

        let error = datapath
            .session()
            .policy()
            .apply(&large)
            .expect_err("there is no room");
        assert!(matches!(error, Error::Policy { .. }), "{error}");
        assert!(error.to_string().contains("stays in force"), "{error}");
        assert_eq!(entries(pod), full, "nothing half-written is left");
        assert!(!goes_directly(to, &pod.neighbour4, &outbound), "as before");

        let small = policy("outbound: [{destinations: [10.99.0.0/16], action: leave}]");
        for prefix in &foreign.prefixes()[..small.prefixes().len()] {
            let key = policy::Key::new(2, prefix.direction, prefix.net);
            assert!(map.remove(&key).expect("an answer"), "it was written");
        }
        datapath
            .session()
            .policy()
            .apply(&small)
            .expect("there is room for this");
        assert!(
            goes_directly(to, &pod.neighbour4, &outbound),
            "the policy changed"
        );
        assert_eq!(entries(pod), before, "and all else is swept away");
    });
}

#[test]
fn the_next_proxy_takes_over_with_its_own_policy() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let to = pod.neighbour4.local_addr().unwrap();
        let leave = policy("outbound: [{destinations: [10.99.0.0/16], action: leave}]");
        let first = pod.attach_as(&with(pod, leave.clone()), None).expect("attach");
        drop(first);
        assert!(
            goes_directly(to, &pod.neighbour4, &outbound),
            "after its proxy, too"
        );
        let _second = pod.attach(None);
        assert!(!goes_directly(to, &pod.neighbour4, &outbound));
        assert_eq!(entries(pod), Policy::default().prefixes().len());
        let _third = pod.attach_as(&with(pod, leave), None).expect("attach");
        assert!(goes_directly(to, &pod.neighbour4, &outbound));
    });
}

#[test]
fn the_explanation_tells_own_addresses_other_protocols_and_open_ports() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let explain = datapath.session().explain();
        let outbound = |protocol, to: &str| explain.outbound(protocol, address(to)).expect("explained");
        for (protocol, to, counter) in [
            (6, "127.0.0.1:80", "passed_local"),
            (6, "[::1]:80", "passed_local"),
            (6, "10.99.0.2:80", "passed_local"),
            (17, "10.0.0.10:53", "passed_protocol"),
            (6, "10.0.0.10:53", "redirected"),
            (6, "169.254.169.254:80", "passed_policy"),
        ] {
            assert_eq!(outbound(protocol, to).counter, counter, "{to}");
        }
        let inbound = |from: &str, to: &str| {
            let verdict = explain.inbound(6, from.parse().unwrap(), address(to));
            verdict.expect("explained").counter
        };
        assert_eq!(inbound("10.99.0.1", "10.99.0.2:15008"), "inbound_passed");
        assert_eq!(inbound("10.99.0.1", "10.99.0.2:15001"), "steered");
        assert_eq!(inbound("169.254.7.127", "10.99.0.2:80"), "inbound_passed_policy");
        assert_eq!(inbound("10.99.0.1", "10.99.0.2:80"), "steered");
    });
}

/// In the kernel's map, of all generations.
fn entries(pod: &Pod) -> usize {
    pinned(pod).keys().expect("the keys").len()
}

fn pinned(pod: &Pod) -> Map<policy::Key, abi::Policy> {
    pod.map(map::POLICY).expect("the pinned map")
}
