//! The rules by which the proxy reaches an application, and by which that is shown its client.

use super::*;

#[test]
fn a_socket_that_is_to_reach_an_application_gets_its_port() {
    let own = |to| Connecting {
        bypass: Some(Port::new(8080)),
        ..app(to)
    };
    for (to, application) in [("10.9.0.2:0", "10.9.0.2:8080"), ("[fd99::2]:0", "[fd99::2]:8080")] {
        assert_eq!(
            connect(&own(to), &settings(STRICT)),
            Connect::Deliver(endpoint(application))
        );
    }
    assert_eq!(
        connect(&own("10.9.0.2:81"), &settings(STRICT)),
        Connect::Pass(Counter::PassedBypass),
        "another port is not put in the place of one that is there"
    );
    assert_eq!(
        connect(&app("10.9.0.2:0"), &settings(STRICT)),
        Connect::Pass(Counter::PassedLocal),
        "nobody else reaches anything by port 0"
    );
}

#[test]
fn a_client_that_a_socket_cannot_name_is_nobody_and_never_the_pod_itself() {
    let (v4, v6) = (endpoint("10.1.2.3:1").ip, endpoint("[fd99::3]:1").ip);
    assert_eq!(presented(v4, true), (v4, Counter::Presented));
    assert_eq!(presented(v4, false), (v4, Counter::Presented));
    assert_eq!(presented(v6, false), (v6, Counter::Presented));
    assert_eq!(presented(v6, true), (Ip::NOBODY4, Counter::PresentedNobody));
    assert_eq!(Ip::NOBODY4, endpoint("192.0.0.8:1").ip);
    assert_eq!(stranger(Ip::spare_source(7)), Some(Ip::NOBODY4));
    for shown in [v4, v6, endpoint("127.0.0.1:1").ip, endpoint("10.9.0.2:1").ip] {
        assert_eq!(stranger(shown), None);
    }
}
