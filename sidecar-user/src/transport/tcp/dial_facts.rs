//! Dials to an address of the link that nobody has, in a network namespace of their own.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

use super::{From, dial, unless_refused};
use crate::transport::Error;

/// The link is asked once, for 20 ms, before a handshake fails with EHOSTUNREACH.
const LINK: &str = "link set lo up\n\
                    link add va type veth peer name vb\n\
                    link set va up\n\
                    link set vb up\n\
                    address add 10.77.0.1/16 dev va\n";
const ASKS: [(&str, &str); 3] = [
    ("neigh/va/mcast_solicit", "1"),
    ("neigh/va/retrans_time_ms", "20"),
    ("icmp_ratelimit", "0"),
];

#[test]
fn an_address_that_nobody_has_is_unreachable() {
    on_a_link(async |nobody| {
        let limit = Duration::from_secs(60);
        let dialled = dial(nobody, |_| Ok(()), From::default(), limit).await;
        let error = dialled.map(drop).expect_err("nobody is there");
        let Error::Connect { source, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(source.kind(), ErrorKind::HostUnreachable);
    });
}

/// SO_ERROR is taken here, so that it is as empty as in the moment before the kernel sets it.
#[test]
fn a_socket_that_wakes_before_so_error_is_set_does_not_pass_for_connected() {
    on_a_link(async |nobody| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        let _in_progress = socket.connect(&nobody.into());
        let mut watched = [PollFd::new(socket.as_fd(), PollFlags::empty())];
        poll(&mut watched, PollTimeout::from(60_000_u16)).unwrap();
        while socket.take_error().unwrap().is_none() {}

        let stream = TcpStream::from_std(socket.into()).unwrap();
        let error = unless_refused(stream).expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::HostUnreachable);
    });
}

/// Runs the body on a thread of its own, with an address of its link that nobody has.
fn on_a_link(body: impl AsyncFnOnce(SocketAddr) + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace: run this test as root");
            furnish();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let nobody = (Ipv4Addr::new(10, 77, 1, 1), 80).into();
            runtime.expect("a runtime").block_on(body(nobody));
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn furnish() {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip");
    let mut input = ip.stdin.take().expect("piped");
    input.write_all(LINK.as_bytes()).expect("ip reads");
    drop(input);
    assert!(ip.wait().expect("ip").success());
    for (name, value) in ASKS {
        fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect(name);
    }
}
