//! The rules by which a connection finds the proxy's listener and its shard, and by which nobody else does.

use super::*;

#[test]
fn a_redirected_ipv4_connection_goes_to_the_outbound_listener_and_others_are_refused() {
    let there = Arriving {
        ingress: 1,
        ..outsider("127.0.0.1", "127.70.1.2:1")
    };
    let answer = |attempt: &Arriving, redirected| {
        super::super::lookup(attempt, &settings(PERMISSIVE), || redirected, || unreachable!())
    };
    assert_eq!(answer(&there, true), Lookup::Redirected);
    assert_eq!(answer(&there, false), Lookup::Drop(Counter::Unclaimed));
    // Those of the pod's own programs.
    for to in ["127.70.1.2:80", "127.0.0.1:1", "127.128.0.1:1"] {
        let other = Arriving {
            to: endpoint(to),
            ..there
        };
        assert_eq!(answer(&other, true), Lookup::Pass(Counter::InboundPassed), "{to}");
    }
}

#[test]
fn nobody_dials_the_proxys_own_listeners() {
    for from in ["127.0.0.1", "10.9.0.2", "10.9.0.3"] {
        let attempt = outsider(from, "127.129.0.1:40000");
        let verdict = lookup(&attempt, &settings(PERMISSIVE));
        assert_eq!(verdict, Lookup::Drop(Counter::DroppedPort), "{from}");
    }
}

#[test]
fn a_connection_has_one_shard_and_many_are_shared_out_evenly() {
    let from = |port| Endpoint {
        port: Port::new(port),
        ..endpoint("127.0.0.1:0")
    };
    for to in ["127.70.1.2:1", "[::1]:61500", "10.9.0.2:15008"] {
        for shards in [1, 2, 3, 64] {
            let mut counts = vec![0; shards as usize];
            // The kernel takes every other port of its range for connect().
            let ports = (32_768..60_999).step_by(2);
            let all = ports.len();
            for port in ports {
                let shard = shard(from(port), endpoint(to), shards);
                assert_eq!(shard, super::super::shard(from(port), endpoint(to), shards));
                counts[shard as usize] += 1;
            }
            let even = all / shards as usize;
            let fair = even - even / 3..=even + even / 3;
            assert!(counts.iter().all(|n| fair.contains(n)), "{to}: {counts:?}");
        }
    }
    assert_eq!(shard(from(1), endpoint("10.9.0.2:1"), 0), 0);
}

#[test]
fn a_redirected_ipv6_connection_goes_to_the_outbound_listener_and_others_pass() {
    let spread = Arriving {
        ingress: 1,
        ..outsider("::1", "[::1]:61500")
    };
    let answer = |attempt: &Arriving, redirected| {
        super::super::lookup(attempt, &settings(STRICT), || redirected, || unreachable!())
    };
    assert_eq!(answer(&spread, true), Lookup::Redirected);
    // A program of the pod that listens there itself.
    assert_eq!(answer(&spread, false), Lookup::Pass(Counter::InboundPassed));
    let below = Arriving {
        to: endpoint("[::1]:8080"),
        ..spread
    };
    assert_eq!(answer(&below, true), Lookup::Pass(Counter::InboundPassed));
}
