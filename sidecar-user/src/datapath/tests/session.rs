//! Facts about a session that is made of descriptors alone, as another process is handed them.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use sidecar_ebpf::abi::map;
use socket2::{Domain, Socket, Type};
use tokio::runtime::{Builder, Runtime};

use super::super::{Datapath, Descriptors, Error, HeldEvents, Policy, Session, Steered};
use super::pod::{Pod, in_pod, steered};
use super::probe::{FAR4, FAR6, address, canonical, original_dst};
use crate::model::{HeldEvent, HeldSyn};

/// Longer than the kernel's first pauses between SYNs.
const PATIENCE: Duration = Duration::from_secs(64);

type Named = Vec<(String, OwnedFd)>;

/// What arrives where descriptors are sent: others of the same.
fn handed_over(datapath: &Datapath) -> Named {
    let descriptors = datapath.descriptors().expect("descriptors");
    let named = descriptors.named().into_iter();
    let copy = |(name, fd): (String, std::os::fd::BorrowedFd<'_>)| {
        (name, fd.try_clone_to_owned().expect("a descriptor"))
    };
    named.map(copy).collect()
}

fn session(named: Named) -> Result<Session, Error> {
    Session::new(Descriptors::of_named(named)?, &Policy::default())
}

/// The installer has ended, and whoever serves sees no pins and may do nothing that not everybody may.
pub(super) fn unprivileged(pod: &Pod, serve: impl FnOnce(Session) + Send) {
    let datapath = pod.attach(None);
    let named = handed_over(&datapath);
    drop(datapath);
    let pins = &pod.config.pins;
    let bpffs = pins.ancestors().nth(2).expect("below a bpffs");
    thread::scope(|scope| {
        let served = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("mounts of its own");
            umount2(bpffs, MntFlags::MNT_DETACH).expect("umount");
            assert!(!pins.exists());
            give_up_capabilities();
            serve(session(named).expect("a session"));
        });
        served.join().expect("served");
    });
}

/// Of the calling thread.
fn give_up_capabilities() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u32 = 0x2008_0522;
    let (header, none) = (
        Header {
            version: VERSION,
            pid: 0,
        },
        [0_u32; 6],
    );
    // SAFETY: the kernel reads a header and, for this version, twice three words.
    let failed = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    assert_eq!(failed, 0, "capset");
    let left = std::fs::read_to_string("/proc/thread-self/status").expect("status");
    assert!(left.contains("CapEff:\t0000000000000000"), "{left}");
}

pub(super) fn count(session: &Session, name: &str) -> u64 {
    let counters = session.counters().into_iter();
    let mut found = counters.filter(|(known, _)| *known == name);
    found.next().expect("a known counter").1
}

pub(super) fn dial(to: &str) -> Socket {
    let to = address(to);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
    socket.set_nonblocking(true).expect("non-blocking");
    let begun = socket.connect(&to.into()).expect_err("not at once");
    assert_eq!(begun.raw_os_error(), Some(libc::EINPROGRESS), "{to}");
    socket
}

/// The connection that is held next.
pub(super) fn held(runtime: &Runtime, events: &mut HeldEvents, far: &str) -> HeldSyn {
    let mut seen = Vec::new();
    let next = events.next(|event| seen.push(event));
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, next).await })
        .expect("something happens")
        .expect("the ring is readable");
    let Some(HeldEvent::Held(syn)) = seen.pop() else {
        panic!("{far} is held")
    };
    syn
}

#[test]
fn descriptors_are_enough_to_hold_a_connection_and_to_approve_it_without_any_capability() {
    in_pod(|pod| {
        unprivileged(pod, |session| {
            let listener = steered();
            let outbound = Some(listener.as_fd());
            let slots = Steered {
                outbound,
                ..Steered::default()
            };
            session.steer(0, slots).expect("steer");
            let hold = session.hold(0, listener.as_fd()).expect("hold");
            session.set_hold(true).expect("the settings are its to change");
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            let (mut events, approvals) = runtime.block_on(async { hold.start() }).expect("the ring");
            for far in [FAR4, FAR6] {
                let _app = dial(far);
                let syn = held(&runtime, &mut events, far);
                assert_eq!(syn.original_dst.0, canonical(address(far)));
                assert!(approvals.is_held(syn.pair, syn.sequence).expect("asked"));
                assert!(approvals.approve(syn.pair, syn.sequence).expect("approve"));
                let (accepted, _) = listener.accept().expect("accept");
                assert_eq!(original_dst(&accepted), Some(canonical(address(far))));
            }
            assert_eq!(count(&session, "held"), 2);
            assert_eq!(count(&session, "approved"), 2);
        });
    });
}

#[test]
fn every_handle_of_a_session_works_without_any_capability() {
    in_pod(|pod| {
        unprivileged(pod, |session| {
            session.proof().see().expect("the programs see this process");

            let own = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
            session.bypass().mark(own.as_fd()).expect("mark");

            let leave =
                super::super::policy::parse("outbound: [{destinations: [203.0.113.0/24], action: leave}]");
            session
                .policy()
                .apply(&leave.expect("a policy"))
                .expect("a policy");
            let explained = session.explain().outbound(6, address(FAR4)).expect("asked");
            assert_eq!(explained.action, super::super::Action::Leave);

            let mut routes = session.routes().expect("routes");
            routes.complete(true).expect("the settings are its to change");
            let mut ports = session.app_ports().expect("ports");
            ports
                .set(|| Ok::<_, Error>(Vec::new()))
                .expect("the settings are its to change");
            session.set_strict(true).expect("strict");
        });
        let settings = super::super::install::pins::pinned_settings(&pod.config.pins).expect("readable");
        assert_eq!([settings.routes, settings.app_ports, settings.strict], [1; 3]);
        assert_eq!(settings.policy_generation, 2, "the first is the installer's");
    });
}

#[test]
fn a_descriptor_of_another_object_is_refused() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        let all: Vec<String> = handed_over(&datapath).into_iter().map(|(name, _)| name).collect();
        for name in &all {
            let mut named = handed_over(&datapath);
            // The two maps of ports are of the same sizes, and of any other object some are not.
            let instead = match name.starts_with(map::APP_PORTS) {
                true => map::INHERITED,
                false => map::APP_PORTS,
            };
            let at =
                |prefix: &str, named: &Named| named.iter().position(|(name, _)| name.starts_with(prefix));
            let instead = at(instead, &named).expect("listed");
            let other = named[instead].1.try_clone().expect("a descriptor");
            let place = named.iter().position(|(of, _)| of == name).expect("listed");
            named[place].1 = other;
            let refused = session(named)
                .err()
                .unwrap_or_else(|| panic!("{name} is refused"));
            assert!(
                !matches!(refused, Error::NotHandedOver { .. }),
                "{name}: {refused}"
            );
        }
    });
}

#[test]
fn a_descriptor_that_is_missing_is_named() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        for (name, _) in handed_over(&datapath) {
            let named = handed_over(&datapath);
            let named = named.into_iter().filter(|(of, _)| *of != name);
            match session(named.collect()) {
                Err(Error::NotHandedOver { name: missing }) => assert_eq!(missing, name),
                // Nothing is to be held.
                Ok(session) if name.starts_with(map::RINGS) => {
                    let refused = session.hold(0, steered().as_fd()).err().expect("refused");
                    assert!(
                        refused.to_string().contains("no ring was handed over"),
                        "{refused}"
                    );
                }
                Ok(_) => panic!("{name} is missing"),
                Err(error) => panic!("{name}: {error}"),
            }
        }
    });
}

#[test]
fn a_session_of_a_pod_that_was_taken_over_changes_nothing() {
    in_pod(|pod| {
        let first = session(handed_over(&pod.attach(None))).expect("a session");
        first.set_strict(true).expect("strict");
        let _second = pod.attach(None);
        let refused = first.set_strict(false).expect_err("refused");
        assert!(matches!(refused, Error::Superseded), "{refused}");
    });
}
