//! Facts about the client that an application of the pod sees when the proxy dials it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use bytemuck::Zeroable;
use nix::libc;
use sidecar_ebpf::abi::{Origin, PRESENTED_ENTRIES, Tuple, map};
use socket2::{Domain, Socket, Type};

use super::super::Bypass;
use super::pod::{Elsewhere, POD4, POD6, in_pod};
use super::probe::{address, canonical, counter, listener, presented};

const CLIENT4: &str = "198.51.100.7:4711";
const CLIENT6: &str = "[2001:db8::77]:4712";
/// Of RFC 7600, with the port of [`CLIENT6`].
const NOBODY: &str = "192.0.0.8:4712";

#[test]
fn the_application_sees_the_true_client_and_the_proxy_itself() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let bypass = datapath.session().bypass();
        let listeners = [
            (listen_on("0.0.0.0:0"), POD4, &[CLIENT4][..]),
            // Without dual stack an IPv4 client is still shown, in the mapped form.
            (listen_on("[::]:0"), POD6, &[CLIENT6, CLIENT4]),
            (listener(Domain::IPV6), POD4, &[CLIENT4, CLIENT6]),
            (listener(Domain::IPV6), POD6, &[CLIENT6, CLIENT4]),
        ];
        for (app, own, clients) in &listeners {
            for client in *clients {
                let to = at(app, own);
                let dialled = dial(&bypass, to, address(client)).expect("connect");
                let (accepted, from) = app.accept().expect("accept");
                let case = format!("{client} at {to}");
                assert_eq!(canonical(from), address(client), "accept, {case}");
                assert_eq!(
                    canonical(accepted.peer_addr().unwrap()),
                    address(client),
                    "getpeername, {case}"
                );
                assert_eq!(canonical(accepted.local_addr().unwrap()), to, "{case}");
                assert_eq!(dialled.peer_addr().unwrap(), to, "the proxy's own end, {case}");
                assert_eq!(dialled.local_addr().unwrap().ip(), to.ip(), "{case}");
            }
        }
        assert_eq!(counter(&datapath, "presented"), 7);
        assert_eq!(counter(&datapath, "present_failed"), 0);
        assert_eq!(presented(pod), 0, "every entry was claimed");
    });
}

#[test]
fn an_ipv6_client_of_an_ipv4_socket_is_shown_as_nobody_and_counted() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let app = listen_on("0.0.0.0:0");
        let _dialled = dial(&datapath.session().bypass(), at(&app, POD4), address(CLIENT6)).expect("connect");
        let (accepted, from) = app.accept().expect("accept");
        assert_eq!(from, address(NOBODY));
        assert_eq!(accepted.peer_addr().unwrap(), from);
        assert_eq!(counter(&datapath, "presented_nobody"), 1);
        assert_eq!(counter(&datapath, "presented"), 0);
        assert_eq!(presented(pod), 0);
    });
}

/// No program may see the proxy, whose address is the pod's own, as its client.
#[test]
fn a_proxy_outside_of_the_cgroup_reaches_no_application() {
    in_pod(|pod| {
        let elsewhere = Elsewhere::new(pod);
        let datapath = pod.attach_as(&elsewhere.0, None).expect("attach");
        for (listen, own) in [("0.0.0.0:0", POD4), ("[::]:0", POD6)] {
            let app = listen_on(listen);
            let refused = dial(&datapath.session().bypass(), at(&app, own), address(CLIENT4)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{own}");
            nobody_came(&app);
        }
    });
}

#[test]
fn a_spare_source_of_the_proxy_is_shown_to_nobody() {
    in_pod(|pod| {
        let before = listen_on("0.0.0.0:0");
        let datapath = pod.attach(None);
        let bypass = datapath.session().bypass();
        for app in [listen_on("0.0.0.0:0"), listener(Domain::IPV6)] {
            let to = at(&app, POD4);
            let spare = bypass
                .spare_source(to, 0x0102)
                .expect("the hooks see this listener");
            assert_eq!(spare, IpAddr::from([127, 128, 1, 2]));
            for client in [Some(address(CLIENT4)), None] {
                let from = SocketAddr::new(spare, 0);
                let dialled = dial_from(&bypass, from, to, client).expect("connect");
                let nobody = SocketAddr::new(address(NOBODY).ip(), dialled.local_addr().unwrap().port());
                let (accepted, shown) = app.accept().expect("accept");
                assert_eq!(canonical(shown), client.unwrap_or(nobody), "accept");
                assert_eq!(
                    canonical(accepted.peer_addr().unwrap()),
                    canonical(shown),
                    "getpeername"
                );
            }
        }
        assert_eq!(
            bypass.spare_source(at(&before, POD4), 1),
            None,
            "perhaps of another cgroup"
        );
        let app = listener(Domain::IPV6);
        assert_eq!(bypass.spare_source(at(&app, POD6), 1), None, "IPv6");
    });
}

#[test]
fn what_a_presented_connection_leaves_speaks_for_no_later_one() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let bypass = datapath.session().bypass();
        for own in [POD4, POD6] {
            let app = listener(Domain::IPV6);
            let to = at(&app, own);
            let closed = closed_port(own);
            let from = closed_port(own);

            // Never answered, refused, and served then reset: each from the same port.
            let refused = dial_from(&bypass, from, closed, Some(address(CLIENT4))).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(presented(pod), 0, "refused");
            let full = Full::new(own);
            full.give_up(&bypass, from);
            assert_eq!(presented(pod), 0, "given up");
            let first = dial_from(&bypass, from, to, Some(address(CLIENT4))).expect("connect");
            assert_eq!(canonical(app.accept().expect("accept").1), address(CLIENT4));
            reset(first);

            for to in [to, at(&full.listener, own)] {
                full.drain();
                let _plain = dial_from(&bypass, from, to, None).expect("the same tuple");
                let listener = if to.port() == full.port() {
                    &full.listener
                } else {
                    &app
                };
                let (_, shown) = listener.accept().expect("accept");
                assert_eq!(canonical(shown), from, "not the old client");
            }
        }
    });
}

#[test]
fn a_full_map_costs_the_connection_and_no_program_sees_another_client() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let full = pod.map(map::PRESENTED).expect("the pinned map");
        for n in 0..PRESENTED_ENTRIES {
            // Of no network namespace that there is.
            let tuple = Tuple {
                netns: u64::MAX,
                reserved: n as u32,
                ..Tuple::zeroed()
            };
            full.set(&tuple, &Origin::zeroed()).expect("room");
        }
        let app = listener(Domain::IPV6);
        for own in [POD4, POD6] {
            let failed = dial(&datapath.session().bypass(), at(&app, own), address(CLIENT4)).unwrap_err();
            assert_eq!(failed.kind(), io::ErrorKind::HostUnreachable, "{own}");
        }
        nobody_came(&app);
        assert_eq!(counter(&datapath, "present_failed"), 2);

        let freed = Tuple {
            netns: u64::MAX,
            ..Tuple::zeroed()
        };
        assert!(full.remove(&freed).expect("an answer"), "an entry");
        let _dialled = dial(&datapath.session().bypass(), at(&app, POD4), address(CLIENT4)).expect("connect");
        let (_, from) = app.accept().expect("accept");
        assert_eq!(canonical(from), address(CLIENT4));
    });
}

#[test]
fn no_client_is_mistaken_for_another_when_many_are_presented_at_once() {
    const DIALLERS: u8 = 4;
    const EACH: u16 = 500;
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let app = listener(Domain::IPV6);
        let to = at(&app, POD4);
        let wrong: Vec<String> = thread::scope(|threads| {
            for dialler in 1..=DIALLERS {
                let bypass = datapath.session().bypass();
                threads.spawn(move || {
                    for port in 1..=EACH {
                        let client = SocketAddr::new(Ipv4Addr::new(198, 18, 0, dialler).into(), port);
                        let mut stream = dial(&bypass, to, client).expect("connect");
                        stream.write_all(client.to_string().as_bytes()).expect("write");
                    }
                });
            }
            let acceptors: Vec<_> = (0..2)
                .map(|_| {
                    threads.spawn(|| {
                        (0..u16::from(DIALLERS) * EACH / 2)
                            .filter_map(|_| {
                                let (mut stream, shown) = app.accept().expect("accept");
                                let mut said = String::new();
                                stream.read_to_string(&mut said).expect("read");
                                (said != canonical(shown).to_string()).then(|| format!("{said} as {shown}"))
                            })
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            acceptors
                .into_iter()
                .flat_map(|acceptor| acceptor.join().expect("no panic"))
                .collect()
        });
        assert_eq!(wrong, Vec::<String>::new());
        assert_eq!(counter(&datapath, "presented"), 2000);
        assert_eq!(presented(pod), 0);
    });
}

/// A listener whose queue is full, so that further SYNs get no answer.
struct Full {
    listener: TcpListener,
    waiting: TcpStream,
}

impl Full {
    fn new(own: &str) -> Self {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
        socket.set_only_v6(false).expect("dual stack");
        socket.bind(&address("[::]:0").into()).expect("bind");
        socket.listen(0).expect("listen");
        let listener: TcpListener = socket.into();
        let waiting = TcpStream::connect(at(&listener, own)).expect("room for one");
        Self { listener, waiting }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("bound").port()
    }

    /// A presented dial that gets no answer and is closed.
    fn give_up(&self, bypass: &Bypass, from: SocketAddr) {
        let own = from.ip().to_string();
        let socket = bound(from);
        let to = at(&self.listener, &own);
        bypass
            .present(socket.as_fd(), address(CLIENT4), to)
            .expect("present");
        socket.set_nonblocking(true).expect("nonblocking");
        let waits = socket.connect(&bypass.door(to).into()).unwrap_err();
        assert_eq!(waits.raw_os_error(), Some(libc::EINPROGRESS));
    }

    /// Takes what waits out of the queue.
    fn drain(&self) {
        self.listener.set_nonblocking(true).expect("nonblocking");
        while let Ok((_, from)) = self.listener.accept() {
            assert_eq!(canonical(from), self.waiting.local_addr().unwrap());
        }
        self.listener.set_nonblocking(false).expect("blocking");
    }
}

fn dial(bypass: &Bypass, to: SocketAddr, client: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    bypass.present(socket.as_fd(), client, to)?;
    socket.connect(&bypass.door(to).into())?;
    Ok(socket.into())
}

fn nobody_came(app: &TcpListener) {
    app.set_nonblocking(true).expect("nonblocking");
    assert_eq!(app.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    app.set_nonblocking(false).expect("blocking");
}

/// From a certain port, and with no client where none is given.
fn dial_from(
    bypass: &Bypass,
    from: SocketAddr,
    to: SocketAddr,
    client: Option<SocketAddr>,
) -> io::Result<TcpStream> {
    let socket = bound(from);
    let mut at = to;
    if let Some(client) = client {
        bypass.present(socket.as_fd(), client, to)?;
        at = bypass.door(to);
    }
    socket.connect_timeout(&at.into(), Duration::from_secs(10))?;
    Ok(socket.into())
}

fn bound(from: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, None).expect("socket");
    socket.set_reuse_address(true).expect("reuse");
    socket.bind(&from.into()).expect("bind");
    socket
}

/// Ends a connection without TIME_WAIT, so that its tuple is free.
fn reset(stream: TcpStream) {
    let socket = Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).expect("linger");
}

/// Nobody listens here.
fn closed_port(own: &str) -> SocketAddr {
    let ip: IpAddr = own.parse().expect("an address");
    let probe = TcpListener::bind((ip, 0)).expect("bind");
    probe.local_addr().expect("bound")
}

/// Of one family only.
fn listen_on(text: &str) -> TcpListener {
    let at = address(text);
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).expect("socket");
    if at.is_ipv6() {
        socket.set_only_v6(true).expect("one family");
    }
    socket.bind(&at.into()).expect("bind");
    socket.listen(128).expect("listen");
    socket.into()
}

/// The listener's port at an address of the pod.
fn at(listener: &TcpListener, own: &str) -> SocketAddr {
    SocketAddr::new(
        own.parse().expect("an address"),
        listener.local_addr().expect("bound").port(),
    )
}
