//! Facts about connections that come in from outside of the pod.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use socket2::Domain;

use super::super::Config;
use super::pod::{POD4, POD6, in_pod};
use super::probe::{canonical, counter, listener};

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
        let datapath = pod.attach_as(&strict, Some(&inbound)).expect("attach");
        let refused = pod.outsider(to).connect(&to.into()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(counter(&datapath, "dropped_strict"), 1);

        datapath.set_strict(false).expect("permissive");
        pod.outsider(to).connect(&to.into()).expect("steered");
        inbound.accept().expect("accept");
    });
}
