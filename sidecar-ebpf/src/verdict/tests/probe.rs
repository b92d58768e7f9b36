//! The proxy's probes.

use super::*;

#[test]
fn a_probe_is_redirected_whatever_the_policy_and_only_to_where_it_was_sent() {
    for (to, changed) in [
        ("192.0.2.7:8000", "192.0.2.8:8000"),
        ("[2001:db8::7]:8000", "[2001:db8::7]:8001"),
    ] {
        for direction in [Direction::OUTBOUND, Direction::INBOUND] {
            let probe = Some(Probe {
                nonce: endpoint(to),
                direction,
            });
            // As the proxy makes them: bound to loopback's device.
            let (bypass, device) = (Some(Port::new(0)), LOOPBACK_IFINDEX);
            let dialled = Connecting {
                probe,
                bypass,
                device,
                ..app(to)
            };
            let nothing = || unreachable!("no map is asked");
            let Connect::Redirect(redirect) = super::super::connect(&dialled, &settings(STRICT), nothing)
            else {
                panic!("{to} is not redirected");
            };
            assert!(redirect.optimistic, "nobody is asked about it");
            assert!(redirect.target.ip.is_loopback());
            let by_port = is_redirect4(redirect.target);
            let is_found = is_spread(redirect.target);
            match direction == Direction::INBOUND {
                true => assert!(is_found && !by_port, "{redirect:?}"),
                false => assert!(is_found != by_port, "{redirect:?}"),
            }
            let changed = Connecting {
                to: endpoint(changed),
                ..dialled
            };
            let denied = super::super::connect(&changed, &settings(STRICT), nothing);
            assert_eq!(denied, Connect::Deny(Counter::DeniedProbe));
        }
    }
}
