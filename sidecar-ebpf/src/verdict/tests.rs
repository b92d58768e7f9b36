//! The rules, one fact a test.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use bytemuck::Zeroable;

use super::*;

mod present;
mod probe;
mod slots;

const STRICT: bool = true;
const PERMISSIVE: bool = false;

fn ip(ip: IpAddr) -> Ip {
    Ip::from_octets(match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    })
}

fn endpoint(text: &str) -> Endpoint {
    let addr: SocketAddr = text.parse().unwrap();
    Endpoint {
        ip: ip(addr.ip()),
        port: Port::new(addr.port()),
    }
}

fn settings(strict: bool) -> Settings {
    let mut settings = Settings {
        abi: ABI_VERSION,
        strict: strict.into(),
        hbone_port: Port::new(15008),
        shards: 2,
        ..Settings::zeroed()
    };
    settings.open_ports[..2].copy_from_slice(&[Port::new(15008), Port::new(15020)]);
    settings.addresses[0] = ip("10.9.0.2".parse().unwrap());
    settings.addresses[1] = ip("fd99::2".parse().unwrap());
    settings
}

/// No policy, and a route to everywhere.
fn connect(socket: &Connecting, settings: &Settings) -> Connect {
    super::connect(socket, settings, || Facts {
        policy: of_port(None, socket.to.port),
        path: Some(REACHABLE),
    })
}

/// No policy, and an application that listens everywhere.
fn lookup(attempt: &Arriving, settings: &Settings) -> Lookup {
    super::lookup(
        attempt,
        settings,
        || false,
        || InboundFacts {
            policy: of_port(None, attempt.to.port),
            listening: true,
            probe: false,
        },
    )
}

const REACHABLE: Path = Path {
    source: Ip::from_v6([1, 2, 3, 4]),
    errno: 0,
};
const LEAVE: Range = Range {
    first: 1,
    last: u16::MAX,
    action: Action::LEAVE,
    optimistic: 0,
    rule: 0,
};

fn app(to: &str) -> Connecting {
    Connecting {
        protocol: TCP,
        bypass: None,
        probe: None,
        to: endpoint(to),
        from: Ip::from_v6([0; 4]),
        device: 0,
    }
}

fn outsider(from: &str, to: &str) -> Arriving {
    Arriving {
        protocol: TCP,
        from: ip(from.parse().unwrap()),
        from_port: Port::new(40000),
        to: endpoint(to),
        ingress: 2,
    }
}

#[test]
fn foreign_destinations_are_redirected_to_loopback_of_their_family() {
    for (to, v4) in [
        ("10.9.0.3:80", true),
        ("[::ffff:10.9.0.3]:80", true),
        ("[fd99::3]:80", false),
    ] {
        let Connect::Redirect(Redirect { target, .. }) = connect(&app(to), &settings(PERMISSIVE)) else {
            panic!("{to} is not redirected");
        };
        assert!(target.ip.is_loopback(), "{to}");
        assert_eq!(target.ip.is_v4(), v4, "{to}");
        let arrives = match v4 {
            true => is_redirect4(target),
            false => is_spread(target),
        };
        assert!(arrives, "{to}");
    }
}

#[test]
fn local_destinations_pass_in_both_modes() {
    for to in [
        "127.0.0.1:80",
        "127.9.9.9:80",
        "[::1]:80",
        "0.0.0.0:80",
        "[::]:80",
        "[::ffff:127.0.0.1]:80",
        "[::ffff:0.0.0.0]:80",
        "10.9.0.2:80",
        "[::ffff:10.9.0.2]:80",
        "[fd99::2]:80",
    ] {
        for mode in [STRICT, PERMISSIVE] {
            let verdict = connect(&app(to), &settings(mode));
            assert_eq!(verdict, Connect::Pass(Counter::PassedLocal), "{to}");
        }
    }
}

#[test]
fn only_tcp_is_redirected() {
    let udp = Connecting {
        protocol: 17,
        ..app("10.9.0.3:53")
    };
    assert_eq!(
        connect(&udp, &settings(STRICT)),
        Connect::Pass(Counter::PassedProtocol)
    );
}

#[test]
fn the_proxys_own_sockets_pass() {
    let own = Connecting {
        bypass: Some(Port::new(0)),
        device: 7,
        ..app("10.9.0.3:80")
    };
    assert_eq!(
        connect(&own, &settings(STRICT)),
        Connect::Pass(Counter::PassedBypass)
    );
}

#[test]
fn a_link_local_destination_passes_or_is_denied_in_strict() {
    let far = app("[fe80::1]:80");
    assert_eq!(
        connect(&far, &settings(PERMISSIVE)),
        Connect::Pass(Counter::PassedDevice)
    );
    assert_eq!(
        connect(&far, &settings(STRICT)),
        Connect::Deny(Counter::DeniedDevice)
    );
    let bound_to_lo = Connecting {
        device: 1,
        ..app("127.0.0.1:80")
    };
    assert_eq!(
        connect(&bound_to_lo, &settings(STRICT)),
        Connect::Pass(Counter::PassedLocal)
    );
}

#[test]
fn without_settings_nothing_leaves_and_nothing_enters() {
    let unset = Settings::zeroed();
    assert_eq!(
        connect(&app("10.9.0.3:80"), &unset),
        Connect::Deny(Counter::DeniedSettings)
    );
    assert_eq!(
        lookup(&outsider("10.9.0.3", "10.9.0.2:80"), &unset),
        Lookup::Drop(Counter::DroppedSettings)
    );
}

#[test]
fn the_same_destination_always_gets_the_same_loopback_address() {
    let a = connect(&app("10.9.0.3:80"), &settings(PERMISSIVE));
    let mapped = connect(&app("[::ffff:10.9.0.3]:80"), &settings(PERMISSIVE));
    assert_eq!(a, mapped);
}

#[test]
fn destinations_spread_over_many_loopback_addresses() {
    let mut seen = HashSet::new();
    for host in 0..50 {
        for port in 80..100 {
            let Connect::Redirect(to) =
                connect(&app(&format!("10.9.1.{host}:{port}")), &settings(PERMISSIVE))
            else {
                panic!("not redirected");
            };
            let octets = to.target.ip.v4().unwrap().to_ne_bytes();
            assert!(octets[0] == 127 && (64..128).contains(&octets[1]), "{octets:?}");
            seen.insert(octets);
        }
    }
    assert!(seen.len() >= 995, "{} of 1000", seen.len());
}

#[test]
fn destinations_spread_over_many_ports_of_the_one_ipv6_loopback_address() {
    let mut seen = HashSet::new();
    // Of one network, of many, and of one host.
    let of_network = (0..250).map(|n| format!("[fd98::{n:x}]:80"));
    let of_networks = (0..250).map(|n| format!("[2001:db8:{n:x}::1]:80"));
    let of_host = (0..250).map(|n| format!("[fd97::1]:{}", 8000 + n));
    for to in of_network.chain(of_networks).chain(of_host) {
        let Connect::Redirect(redirect) = connect(&app(&to), &settings(PERMISSIVE)) else {
            panic!("{to} is not redirected");
        };
        assert!(is_spread(redirect.target), "{to}: {redirect:?}");
        seen.insert(redirect.target.port.get());
    }
    // 750 of 4,096: chance alone makes some 65 meet.
    assert!(seen.len() > 650, "{} of 750", seen.len());
}

#[test]
fn what_the_kernel_refuses_anyway_is_left_to_it() {
    let from_loopback = Connecting {
        from: ip("127.0.0.1".parse().unwrap()),
        ..app("10.9.0.3:80")
    };
    let from_loopback6 = Connecting {
        from: ip("::1".parse().unwrap()),
        ..app("[fd99::3]:80")
    };
    assert_eq!(
        connect(&from_loopback6, &settings(STRICT)),
        Connect::Deny(Counter::DeniedSpecial),
        "the kernel would let it out"
    );
    assert_eq!(
        connect(&from_loopback6, &settings(PERMISSIVE)),
        Connect::Pass(Counter::PassedSpecial)
    );
    for socket in [
        from_loopback,
        app("224.0.0.1:80"),
        app("255.255.255.255:80"),
        app("[ff02::1]:80"),
        app("10.9.0.3:0"),
    ] {
        let verdict = connect(&socket, &settings(STRICT));
        assert_eq!(verdict, Connect::Pass(Counter::PassedSpecial), "{socket:?}");
    }
}

#[test]
fn outsiders_are_steered_or_dropped_by_mode() {
    for (from, to) in [("10.9.0.3", "10.9.0.2:80"), ("fd99::3", "[fd99::2]:80")] {
        let attempt = outsider(from, to);
        assert_eq!(lookup(&attempt, &settings(PERMISSIVE)), Lookup::Steer, "{from}");
        assert_eq!(
            lookup(&attempt, &settings(STRICT)),
            Lookup::Drop(Counter::DroppedStrict)
        );
    }
}

#[test]
fn udp_is_never_steered() {
    let udp = Arriving {
        protocol: 17,
        ..outsider("10.9.0.3", "10.9.0.2:53")
    };
    assert_eq!(
        lookup(&udp, &settings(STRICT)),
        Lookup::Pass(Counter::InboundPassed)
    );
}

#[test]
fn attempts_from_inside_the_pod_pass_before_any_other_rule() {
    let on_lo = Arriving {
        ingress: 1,
        ..outsider("10.9.0.3", "10.9.0.2:15006")
    };
    for attempt in [
        on_lo,
        outsider("10.9.0.2", "10.9.0.2:15006"),
        outsider("fd99::2", "[fd99::2]:15001"),
        outsider("127.0.0.9", "10.9.0.2:80"),
        // Bound to one own address, going to another.
        outsider("10.9.0.2", "10.9.0.7:80"),
    ] {
        assert_eq!(
            lookup(&attempt, &settings(STRICT)),
            Lookup::Pass(Counter::InboundPassed),
            "{attempt:?}"
        );
    }
}

#[test]
fn open_ports_pass_in_both_modes_and_mesh_peers_are_shared_out() {
    for mode in [STRICT, PERMISSIVE] {
        let answer = |from: &str, to: &str| lookup(&outsider(from, to), &settings(mode));
        assert_eq!(
            answer("10.9.0.3", "10.9.0.2:15020"),
            Lookup::Pass(Counter::InboundPassed)
        );
        for from in ["10.9.0.3", "10.9.0.2"] {
            assert_eq!(answer(from, "10.9.0.2:15008"), Lookup::Tunnel, "{from}");
        }
        assert_eq!(answer("fd99::3", "[fd99::2]:15008"), Lookup::Tunnel);
    }
}

#[test]
fn a_probe_of_the_host_passes_in_both_modes_also_where_nobody_listens_and_not_before_there_are_settings() {
    let answer = |settings: &Settings, port: &str, listening, probe| {
        let facts = || InboundFacts {
            policy: of_port(None, Port::new(80)),
            listening,
            probe,
        };
        super::lookup(&outsider("10.9.0.1", port), settings, || false, facts)
    };
    let passed = Lookup::Pass(Counter::InboundPassedProbe);
    for mode in [STRICT, PERMISSIVE] {
        for listening in [true, false] {
            assert_eq!(answer(&settings(mode), "10.9.0.2:80", listening, true), passed);
        }
    }
    let strict = answer(&settings(STRICT), "10.9.0.2:80", true, false);
    assert_eq!(strict, Lookup::Drop(Counter::DroppedStrict));
    // What is refused or taken for another reason stays so.
    let at_listeners = answer(&settings(STRICT), "127.129.0.1:80", true, true);
    assert_eq!(at_listeners, Lookup::Drop(Counter::DroppedPort));
    assert_eq!(
        answer(&settings(STRICT), "10.9.0.2:15008", true, true),
        Lookup::Tunnel
    );
    let nobodys = Settings {
        abi: 0,
        ..settings(STRICT)
    };
    let early = answer(&nobodys, "10.9.0.2:80", true, true);
    assert_eq!(early, Lookup::Drop(Counter::DroppedSettings));
}

#[test]
fn policy_leaves_alone_in_both_directions_also_in_strict() {
    let out = super::connect(&app("10.9.0.3:80"), &settings(STRICT), || Facts {
        policy: LEAVE,
        path: None,
    });
    assert_eq!(out, Connect::Pass(Counter::PassedPolicy));
    let attempt = outsider("10.9.0.3", "10.9.0.2:80");
    let inbound = |to: &Arriving| {
        super::lookup(
            to,
            &settings(STRICT),
            || false,
            || InboundFacts {
                policy: LEAVE,
                listening: true,
                probe: false,
            },
        )
    };
    assert_eq!(inbound(&attempt), Lookup::Pass(Counter::InboundPassedPolicy));
}

#[test]
fn the_first_range_that_holds_the_port_counts_and_everything_is_taken_otherwise() {
    let range = |first, last, action, rule| Range {
        first,
        last,
        action,
        optimistic: 0,
        rule,
    };
    let mut policy = Policy::zeroed();
    policy.ranges[0] = range(443, 443, Action::TAKE, 1);
    policy.ranges[1] = range(400, 500, Action::LEAVE, 2);
    let rule = |port| of_port(Some(&policy), Port::new(port)).rule;
    assert_eq!([rule(443), rule(400), rule(500)], [1, 2, 2]);
    for outside in [399, 501, 0] {
        let default = of_port(Some(&policy), Port::new(outside));
        assert_eq!((default.action, default.rule), (Action::TAKE, Range::DEFAULT));
    }
}

#[test]
fn connect_fails_as_the_routes_say_once_they_are_known() {
    let to = |settings: &Settings, socket: &Connecting, path: Option<Path>| {
        super::connect(socket, settings, || Facts {
            policy: of_port(None, socket.to.port),
            path,
        })
    };
    let blocked = Path {
        errno: 113,
        ..REACHABLE
    };
    let known = Settings {
        routes: 1,
        ..settings(PERMISSIVE)
    };
    let socket = app("10.9.0.3:80");
    assert_eq!(
        to(&known, &socket, Some(blocked)),
        Connect::Fail(113, Counter::FailedRoute)
    );
    assert_eq!(
        to(&known, &socket, None),
        Connect::Fail(ENETUNREACH, Counter::FailedRoute)
    );
    let redirected = |settings: &Settings, socket: &Connecting, path| match to(settings, socket, path) {
        Connect::Redirect(redirect) => redirect.source,
        other => panic!("{other:?}"),
    };
    assert_eq!(redirected(&known, &socket, Some(REACHABLE)), REACHABLE.source);
    assert!(redirected(&settings(PERMISSIVE), &socket, None).is_zero());
    let bound = Connecting { device: 7, ..socket };
    assert!(redirected(&known, &bound, None).is_zero(), "its device routes it");
}

#[test]
fn a_port_on_which_the_application_does_not_listen_is_refused() {
    let attempt = outsider("10.9.0.3", "10.9.0.2:80");
    let verdict = |settings: &Settings| {
        super::lookup(
            &attempt,
            settings,
            || false,
            || InboundFacts {
                policy: of_port(None, attempt.to.port),
                listening: false,
                probe: false,
            },
        )
    };
    assert_eq!(
        verdict(&settings(PERMISSIVE)),
        Lookup::Steer,
        "nobody knows the listeners yet"
    );
    for mode in [PERMISSIVE, STRICT] {
        let known = Settings {
            app_ports: 1,
            ..settings(mode)
        };
        let expected = match mode {
            STRICT => Lookup::Drop(Counter::DroppedStrict),
            PERMISSIVE => Lookup::Drop(Counter::DroppedClosed),
        };
        assert_eq!(verdict(&known), expected);
    }
}
