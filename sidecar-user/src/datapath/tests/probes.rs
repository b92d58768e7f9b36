//! Facts about probes of the host: they see the application as it is, and nobody else passes the proxy with them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;

use sidecar_ebpf::abi::{ProbePort, map};

use super::super::install::pins;
use super::super::map::Map;
use super::super::{
    Action, Config, Control, Datapath, Former, Node, PodTarget, Policy, Secret, Session, Verdict,
};
use super::confined::confined;
use super::control::SECRET;
use super::pod::{NEIGHBOUR4, NEIGHBOUR6, POD4, POD6, Pod, in_pod};
use super::probe::counter;

fn attach(pod: &Pod, node: &Node, strict: bool) -> Datapath {
    let config = Config {
        strict,
        ..pod.config.clone()
    };
    let lease = pod.lease(&config.pins).expect("a lease");
    let target = PodTarget::of(&config).expect("a pod");
    let datapath = Datapath::prepare_on(Some(node), &config, target, lease, Former::Gone).expect("prepared");
    datapath.activate().expect("attached");
    datapath
}

fn node(pod: &Pod) -> Node {
    Node::load(&pins_of(pod)).expect("loaded")
}

fn pins_of(pod: &Pod) -> PathBuf {
    pod.config.pins.with_file_name("shared")
}

fn host() -> BTreeSet<IpAddr> {
    [NEIGHBOUR4, NEIGHBOUR6]
        .map(|ip| ip.parse().expect("an address"))
        .into()
}

fn application(pod: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(SocketAddr::new(pod.parse().expect("an address"), 0)).expect("bind");
    let at = listener.local_addr().expect("an address");
    (listener, at)
}

#[test]
fn a_probe_of_the_host_reaches_a_live_application_and_is_refused_by_a_dead_one_in_both_modes() {
    in_pod(|pod| {
        let node = node(pod);
        node.set_host_addresses(&host()).expect("set");
        let datapath = attach(pod, &node, true);
        for strict in [true, false] {
            datapath.session().set_strict(strict).expect("set");
            for family in [POD4, POD6] {
                let (app, at) = application(family);
                node.set_probe_ports(datapath.pod(), &[at.port()].into())
                    .expect("set");
                let before = counter(&datapath, "inbound_passed_probe");
                pod.outsider(at)
                    .connect(&at.into())
                    .expect("the application itself");
                let (_, client) = app.accept().expect("accepted");
                assert!(host().contains(&client.ip()), "{client}");
                drop(app);
                let refused = pod.outsider(at).connect(&at.into()).expect_err("it is dead");
                assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
                assert_eq!(counter(&datapath, "inbound_passed_probe"), before + 2);
            }
        }
    });
}

#[test]
fn a_proxy_that_has_installed_by_itself_lets_its_host_ask() {
    in_pod(|pod| {
        let config = Config {
            strict: true,
            ..pod.config.clone()
        };
        let lease = pod.lease(&config.pins).expect("a lease");
        let target = PodTarget::of(&config).expect("a pod");
        let datapath = Datapath::prepare(&config, target, lease, Former::Gone).expect("prepared");
        let (app, at) = application(POD4);
        let (_other, elsewhere) = application(POD4);
        datapath.let_probe(&host(), &[at.port()].into()).expect("set");
        datapath.activate().expect("attached");
        pod.outsider(at)
            .connect(&at.into())
            .expect("the application itself");
        app.accept().expect("accepted");
        let refused = pod
            .outsider(elsewhere)
            .connect(&elsewhere.into())
            .expect_err("no probe");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn another_source_and_another_port_and_a_port_that_is_declared_no_more_are_no_probe() {
    in_pod(|pod| {
        let node = node(pod);
        let datapath = attach(pod, &node, true);
        let (app, at) = application(POD4);
        let refused = |why: &str| {
            let before = counter(&datapath, "dropped_strict");
            let refused = pod.outsider(at).connect(&at.into()).expect_err(why);
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(counter(&datapath, "dropped_strict"), before + 1, "{why}");
        };
        let port = at.port();
        node.set_probe_ports(datapath.pod(), &[port].into()).expect("set");
        refused("the host is not known");
        node.set_host_addresses(&["10.99.0.77".parse().unwrap()].into())
            .expect("set");
        refused("it is another address than the host's");
        node.set_host_addresses(&host()).expect("set");
        pod.outsider(at).connect(&at.into()).expect("both are known");
        app.accept().expect("accepted");
        node.set_probe_ports(datapath.pod(), &[port ^ 1].into())
            .expect("set");
        refused("another port is declared");
        // Of a pod that is gone nothing is left for the one that has its addresses next.
        let declared = Map::<ProbePort, u32>::pinned(map::PROBES, &pins::map(&pins_of(pod), map::PROBES));
        let declared = declared.expect("the node's");
        assert_eq!(declared.entries().expect("read").len(), 1);
        node.forget(datapath.pod().netns().cookie().expect("a cookie"))
            .expect("forgotten");
        assert!(declared.entries().expect("read").is_empty());
    });
}

/// What a sidecar says, which may not call bpf(2) and has none of these maps.
#[test]
fn who_asks_what_would_happen_is_told_of_a_probe_and_of_nothing_else_that_it_is_one() {
    in_pod(|pod| {
        let node = node(pod);
        let datapath = attach(pod, &node, true);
        datapath.open_control(&Secret::new(SECRET)).expect("attached");
        let control = Control::open(Secret::new(SECRET)).expect("the secret is taken");
        let descriptors = datapath.descriptors().expect("descriptors");
        let session = Session::by_control(descriptors, &Policy::default(), &control).expect("a session");
        let explain = session.explain();
        let told = |from: &str, pod: &str, port| -> Verdict {
            let at = SocketAddr::new(pod.parse().unwrap(), port);
            confined(|| explain.inbound(6, from.parse().unwrap(), at)).expect("explained")
        };
        node.set_probe_ports(datapath.pod(), &[8080].into()).expect("set");
        assert_eq!(
            told(NEIGHBOUR4, POD4, 8080).counter,
            "dropped_strict",
            "no host is known"
        );
        node.set_host_addresses(&host()).expect("set");
        for (from, pod) in [(NEIGHBOUR4, POD4), (NEIGHBOUR6, POD6)] {
            let probe = told(from, pod, 8080);
            assert_eq!(
                (probe.action, probe.counter),
                (Action::Leave, "inbound_passed_probe")
            );
            assert!(!probe.asked_policy && probe.reason.starts_with("it is a probe of the kubelet"));
            assert_eq!(
                told(from, pod, 8081).counter,
                "dropped_strict",
                "no probe is declared there"
            );
        }
        assert_eq!(
            told("10.99.0.77", POD4, 8080).counter,
            "dropped_strict",
            "somebody else"
        );
    });
}
