//! Facts about the control path: a thread to which bpf(2) is refused writes all that a proxy writes.

use std::net::{IpAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use ipnet::IpNet;
use nix::libc;
use sidecar_ebpf::abi::control::{Word, WordChange, operation};
use sidecar_ebpf::abi::{self, Inherited, map};
use socket2::{Domain, Socket, Type};
use tokio::runtime::Builder;

use super::super::install::pins;
use super::super::policy::{self, Direction};
use super::super::{Control, Datapath, Error, Policy, Secret, Session, Steered, sys};
use super::confined::confined;
use super::pod::{POD4, Pod, in_pod, own_cgroup, steered};
use super::probe::{FAR4, FAR6, address, canonical, counter, original_dst};
use super::session::held;
use crate::model::network::{Listening, Path};

pub(super) const SECRET: [u8; 16] = *b"0123456789abcdef";

/// Programs that are attached, and the session that an agent hands over.
pub(super) fn controlled(pod: &Pod) -> (Datapath, Session) {
    let datapath = pod.attach(None);
    datapath.open_control(&Secret::new(SECRET)).expect("attached");
    let session = session(&datapath);
    (datapath, session)
}

fn session(datapath: &Datapath) -> Session {
    let control = Control::open(Secret::new(SECRET)).expect("the secret is taken");
    let descriptors = datapath.descriptors().expect("descriptors");
    Session::by_control(descriptors, &Policy::default(), &control).expect("a session")
}

/// As a process asks that is made otherwise than this version: its errno, or 0.
pub(super) fn ask(socket: &Socket, operation: i32, secret: &[u8], body: &[u8]) -> i32 {
    let request = [secret, body].concat();
    // SAFETY: the length is the buffer's.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            abi::control::LEVEL,
            operation,
            request.as_ptr().cast(),
            request.len() as libc::socklen_t,
        )
    };
    match failed {
        0 => 0,
        _ => std::io::Error::last_os_error().raw_os_error().expect("an errno"),
    }
}

pub(super) fn tcp() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket")
}

#[test]
fn a_socket_is_marked_and_marked_again_without_bpf() {
    in_pod(|pod| {
        let (datapath, session) = controlled(pod);
        let client = address("198.51.100.9:4711");
        let served = TcpListener::bind((POD4, 0)).expect("a port");
        let at = served.local_addr().expect("an address");
        let bypass = session.bypass();
        let (own, unmarked) = (tcp(), tcp());
        confined(|| bypass.mark(own.as_fd()).expect("mark"));

        let marks = pod.map::<RawFd, abi::Bypass>(map::BYPASS).expect("the map");
        let mark = |socket: &Socket| marks.get(&socket.as_raw_fd()).expect("readable");
        assert_eq!(mark(&own), Some(abi::Bypass::ON));
        assert_eq!(mark(&unmarked), None);
        let to = pod.neighbour4.local_addr().expect("an address");
        own.connect(&to.into()).expect("past the proxy");
        assert_eq!(counter(&datapath, "passed_bypass"), 1);

        // The application that is dialled is shown the client.
        let dialling = tcp();
        bypass.mark(dialling.as_fd()).expect("mark");
        bypass
            .present(dialling.as_fd(), client, at)
            .expect("over the mark that is there");
        dialling.connect(&bypass.door(at).into()).expect("connect");
        assert_eq!(served.accept().expect("accept").1, client);
    });
}

#[test]
fn a_held_connection_is_approved_withdrawn_and_asked_for_without_bpf() {
    in_pod(|pod| {
        let (datapath, session) = controlled(pod);
        let listener = steered();
        let slots = Steered {
            outbound: Some(listener.as_fd()),
            ..Steered::default()
        };
        datapath.session().steer(0, slots).expect("steer");
        let hold = session.hold(0, listener.as_fd()).expect("hold");
        confined(|| {
            session.set_hold(true).expect("the settings are its to change");
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            let (mut events, approvals) = runtime.block_on(async { hold.start() }).expect("the ring");
            for far in [FAR4, FAR6] {
                let _app = dial(far);
                let syn = held(&runtime, &mut events, far);
                let (pair, sequence) = (syn.pair, syn.sequence);
                assert!(approvals.is_held(pair, sequence).expect("asked"));
                assert!(!approvals.is_held(pair, sequence.wrapping_add(1)).expect("asked"));
                assert!(!approvals.approve(pair, sequence.wrapping_add(1)).expect("asked"));
                assert!(approvals.approve(pair, sequence).expect("approve"));
                assert!(approvals.withdraw(pair, sequence).expect("withdraw"));
                assert!(approvals.approve(pair, sequence).expect("approve"));
                let (accepted, _) = listener.accept().expect("accept");
                assert_eq!(original_dst(&accepted), Some(canonical(address(far))));
                assert!(!approvals.is_held(pair, sequence).expect("asked"), "accepted");
                assert!(!approvals.approve(pair, sequence).expect("asked"));
            }
        });
        assert_eq!(
            [counter(&datapath, "held"), counter(&datapath, "approved")],
            [2, 2]
        );
        assert_eq!(counter(&datapath, "denied_control"), 0, "a no is no refusal");
    });
}

fn dial(to: &str) -> Socket {
    let to = address(to);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
    socket.set_nonblocking(true).expect("non-blocking");
    let begun = socket.connect(&to.into()).expect_err("not at once");
    assert_eq!(begun.raw_os_error(), Some(libc::EINPROGRESS), "{to}");
    socket
}

#[test]
fn a_policy_is_put_in_the_place_of_another_without_bpf_and_is_read_back() {
    in_pod(|pod| {
        let (datapath, session) = controlled(pod);
        let policies = session.policy();
        let to = address(FAR4);
        let action = |policies: &super::super::PolicyMap| {
            policies
                .lookup(Direction::Outbound, to.ip(), to.port())
                .expect("readable")
                .action
        };
        for (text, expected) in [
            (
                "outbound: [{destinations: [203.0.113.0/24], action: leave}]",
                abi::Action::LEAVE,
            ),
            (
                "outbound: [{destinations: [203.0.113.0/24], action: take}]",
                abi::Action::TAKE,
            ),
            (
                "outbound: [{destinations: [203.0.113.0/25], ports: [80], action: leave}]",
                abi::Action::LEAVE,
            ),
        ] {
            let policy = policy::parse(text).expect("a policy");
            confined(|| policies.apply(&policy).expect("written"));
            assert_eq!(confined(|| action(&policies)), expected, "{text}");
            // As the installer reads it.
            let installer = datapath.descriptors().and_then(|d| Session::new(d, &policy));
            assert_eq!(
                action(&installer.expect("a session").policy()),
                expected,
                "{text}"
            );
        }
        let generation = pins::pinned_settings(&pod.config.pins)
            .expect("settings")
            .policy_generation;
        let keys = pod
            .map::<policy::Key, abi::Policy>(map::POLICY)
            .expect("the map")
            .keys();
        let others = keys.expect("keys");
        // The installer's own policy stays for the installer to remove.
        let first = u8::try_from(generation - 3).expect("small");
        assert!(
            others
                .iter()
                .all(|key| [first, generation as u8].contains(&key.key.generation)),
            "those that this process has written are retired: {others:?}"
        );
    });
}

#[test]
fn routes_are_written_changed_and_removed_without_bpf() {
    in_pod(|pod| {
        let (_datapath, session) = controlled(pod);
        let mut routes = session.routes().expect("routes");
        let net = |text: &str| text.parse::<IpNet>().expect("a network");
        let source: IpAddr = POD4.parse().expect("an address");
        let all = [
            (net("0.0.0.0/0"), Path::From(source)),
            (net("203.0.113.0/24"), Path::Fails(113)),
            (net("2001:db8::/32"), Path::Fails(101)),
        ];
        let two = [all[0], (all[1].0, Path::Fails(110))];
        // The key: how many bits count, then an IPv6 address; the value: an address, then an errno.
        let map = pod.map::<[u8; 20], [u8; 20]>(map::ROUTES).expect("the map");
        let written = || {
            let mut errnos: Vec<(u8, u8)> = map
                .entries()
                .expect("readable")
                .iter()
                .map(|(key, value)| (key[0], value[16]))
                .collect();
            errnos.sort_unstable();
            errnos
        };
        confined(|| {
            routes.set(&all.into()).expect("written");
            routes.complete(true).expect("the settings are its to change");
        });
        assert_eq!(written(), [(32, 101), (96, 0), (120, 113)]);
        let refused = tcp().connect(&address(FAR4).into()).expect_err("no route");
        assert_eq!(refused.raw_os_error(), Some(113), "{refused}");
        confined(|| routes.set(&two.into()).expect("changed and removed"));
        assert_eq!(written(), [(96, 0), (120, 110)]);

        let explain = session.explain();
        let verdict = explain.outbound(6, address(FAR4)).expect("read back");
        assert_eq!(verdict.action, super::super::Action::Fail(110));
    });
}

#[test]
fn each_word_of_the_settings_is_changed_alone_without_bpf() {
    in_pod(|pod| {
        let (_datapath, session) = controlled(pod);
        let settings = || pins::pinned_settings(&pod.config.pins).expect("settings");
        let before = settings();
        confined(|| session.set_strict(true).expect("strict"));
        assert_eq!(settings(), abi::Settings { strict: 1, ..before });
        confined(|| session.set_hold(true).expect("hold"));
        assert_eq!(
            settings(),
            abi::Settings {
                strict: 1,
                hold: 1,
                ..before
            }
        );
        confined(|| session.set_strict(false).expect("strict"));
        let socket = tcp();
        let word = |word, value| {
            let change = WordChange {
                epoch: before.epoch,
                word,
                value,
            };
            confined(|| ask(&socket, operation::WORD, &SECRET, bytemuck::bytes_of(&change)))
        };
        assert_eq!(word(Word::SHARDS, 3 << 16 | 64), 0);
        assert_eq!(word(Word::ROUTES, 1), 0);
        assert_eq!(word(Word::APP_PORTS, 1), 0);
        assert_eq!(word(Word::POLICY_GENERATION, 7), 0);
        let expected = abi::Settings {
            hold: 1,
            first_shard: 64,
            shards: 3,
            routes: 1,
            app_ports: 1,
            policy_generation: 7,
            ..before
        };
        assert_eq!(settings(), expected);
    });
}

#[test]
fn listeners_that_the_programs_count_are_told_from_others_without_bpf() {
    in_pod(|pod| {
        let before = TcpListener::bind((POD4, 0)).expect("a port");
        let (_datapath, session) = controlled(pod);
        let after = TcpListener::bind((POD4, 0)).expect("a port");
        let listening = |listener: &TcpListener| Listening {
            cookie: sys::socket_cookie(listener.as_fd()).expect("a cookie"),
            at: listener.local_addr().expect("an address"),
            cgroup: Some(own_cgroup()),
        };
        let all = [listening(&before), listening(&after)];
        let socket = tcp();
        let counted = |of: &Listening| {
            confined(|| {
                ask(
                    &socket,
                    operation::HAS_APP_SOCKET,
                    &SECRET,
                    &of.cookie.to_ne_bytes(),
                )
            })
        };
        assert_eq!([counted(&all[0]), counted(&all[1])], [libc::ENOENT, 0]);

        let mut ports = session.app_ports().expect("ports");
        ports.set(|| Ok::<_, Error>(all.to_vec())).expect("set");
        let inherited = pod.map::<u32, Inherited>(map::INHERITED).expect("the map");
        let serves = |of: &Listening| {
            let port = of.at.port();
            let slot = inherited.get(&Inherited::place(port)).expect("readable");
            slot.expect("an array").serves(port, true)
        };
        assert_eq!([serves(&all[0]), serves(&all[1])], [true, false]);
    });
}

#[test]
fn a_proxy_that_has_lost_the_pod_changes_nothing_by_the_control_path() {
    in_pod(|pod| {
        let (_first, session) = controlled(pod);
        let second = pod.attach(None);
        second.open_control(&Secret::new(SECRET)).expect("attached");
        confined(|| {
            let refused = session.set_strict(true).expect_err("refused");
            assert!(matches!(refused, Error::Superseded), "{refused}");
            let refused = session.policy().apply(&Policy::default()).expect_err("refused");
            assert!(matches!(refused, Error::Superseded), "{refused}");
        });
        let settings = pins::pinned_settings(&pod.config.pins).expect("settings");
        assert_eq!((settings.strict, settings.policy_generation), (0, 2));
        // What it has begun it goes on with, so it still dials.
        let own = tcp();
        confined(|| session.bypass().mark(own.as_fd()).expect("mark"));
    });
}
