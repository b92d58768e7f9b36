//! Facts about connections that come in from outside of the pod.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use socket2::Domain;

use super::super::{Config, Steered};
use super::pod::{POD4, POD6, in_pod, steered};
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
fn mesh_peers_reach_the_listener_of_their_shard_or_the_one_that_is_bound_to_the_port() {
    in_pod(|pod| {
        let (bound, of_shard) = (
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, 15008)).expect("listen"),
            steered(),
        );
        let datapath = pod.attach(None);
        for mesh in [&bound, &of_shard] {
            for strict in [false, true] {
                datapath.session().set_strict(strict).expect("mode");
                for ip in [POD4, POD6] {
                    let at = SocketAddr::new(ip.parse().unwrap(), 15008);
                    pod.outsider(at).connect(&at.into()).expect("open");
                    let (accepted, _) = mesh.accept().expect("accept");
                    assert_eq!(canonical(accepted.local_addr().unwrap()), at);
                }
            }
            let slots = Steered {
                hbone: Some(of_shard.as_fd()),
                ..Steered::default()
            };
            datapath.session().steer(0, slots).expect("steer");
        }
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

        datapath.session().set_strict(false).expect("permissive");
        pod.outsider(to).connect(&to.into()).expect("steered");
        inbound.accept().expect("accept");
    });
}
