//! Facts about what a session reads without bpf(2): events, settings, ports and counters.

use std::ffi::CString;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;
use std::{io, thread};

use nix::libc;
use sidecar_ebpf::abi::{
    APP_PORT_SLOTS, AppPorts, COUNTER_ROWS, COUNTER_SLOTS, Counter, INHERITED_SLOTS, Inherited, RING_BYTES,
    Settings, map,
};
use socket2::{Domain, Socket, Type};
use tokio::runtime::Builder;

use super::super::install::pins;
use super::super::map::{self as kernel, Map};
use super::super::session::mapped::{Mapped, Writable};
use super::super::session::ring::Ring;
use super::super::{Error, Session, Steered, sys};
use super::pod::{POD4, Pod, in_pod, steered};
use super::probe::{FAR4, FAR6, address, canonical};
use super::session::{count, dial, unprivileged};
use crate::model::HeldEvent;

/// Longer than the kernel's first pauses between SYNs.
const PATIENCE: Duration = Duration::from_secs(64);
/// Rows of the counters, all of them.
const COUNTERS: usize = COUNTER_ROWS * COUNTER_SLOTS;

/// What the filter does with bpf(2).
#[derive(Clone, Copy)]
enum Bpf {
    /// As a container's usual profile.
    Refused,
    /// The process ends: so not even a call whose failure nobody notices is made.
    Kills,
}

/// For the calling thread, until it ends.
fn filter(bpf: Bpf) {
    let action = match bpf {
        Bpf::Refused => libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned(),
        Bpf::Kills => libc::SECCOMP_RET_KILL_PROCESS,
    };
    let step = |code: u32, yes: u8, no: u8, value: u32| libc::sock_filter {
        code: code as u16,
        jt: yes,
        jf: no,
        k: value,
    };
    let mut steps = [
        // The number of the call is the first word of `struct seccomp_data`.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_bpf as u32,
        ),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, action),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: numbers.
    let failed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(failed, 0, "no_new_privs: {}", io::Error::last_os_error());
    // SAFETY: the kernel copies the steps, which are as many as it is told.
    let failed = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(failed, 0, "seccomp: {}", io::Error::last_os_error());
}

fn pinned(pod: &Pod, name: &'static str) -> OwnedFd {
    sys::open_pin(&pins::map(&pod.config.pins, name)).expect(name)
}

fn mapped<T: bytemuck::Pod>(pod: &Pod, name: &'static str, slots: usize) -> Result<Mapped<T>, Error> {
    Mapped::new(name, pinned(pod, name).as_fd(), slots)
}

fn open(session: &Session, to: SocketAddr) -> bool {
    // An address to dial from is spared for those that are counted, and not found.
    session.bypass().spare_source(to, 1).is_some()
}

#[test]
fn a_session_reads_events_settings_ports_and_counters_under_a_filter_that_kills_for_bpf() {
    in_pod(|pod| {
        unprivileged(pod, |session| {
            let listener = steered();
            let slots = Steered {
                outbound: Some(listener.as_fd()),
                ..Steered::default()
            };
            session.steer(0, slots).expect("steer");
            session.set_hold(true).expect("the settings are its to change");
            let mut ports = session.app_ports().expect("ports");
            let nobody = ports.set(|| Ok::<_, Error>(Vec::new()));
            assert!(!nobody.expect("the settings are its to change"));
            let hold = session.hold(0, listener.as_fd()).expect("hold");

            filter(Bpf::Refused);
            let refused = session.set_strict(true).expect_err("writing takes bpf(2)");
            assert!(
                refused.to_string().contains("Operation not permitted"),
                "{refused}"
            );
            filter(Bpf::Kills);

            assert_eq!(session.switches().current(), session.switches().wanted());
            assert_eq!(session.switches().current().hold, 1);
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            let (mut events, _) = runtime.block_on(async { hold.start() }).expect("the ring");
            let mut apps = Vec::new();
            for far in [FAR4, FAR6] {
                apps.push(dial(far));
                let mut seen = Vec::new();
                let next = events.next(|event| seen.push(event));
                runtime
                    .block_on(async { tokio::time::timeout(PATIENCE, next).await })
                    .expect("something happens")
                    .expect("the ring is readable");
                let held = seen.iter().find_map(|event| match event {
                    HeldEvent::Held(syn) => Some(syn.original_dst.0),
                    _ => None,
                });
                assert_eq!(held, Some(canonical(address(far))));
            }
            assert_eq!(count(&session, "held"), 2);

            let app = TcpListener::bind((POD4, 0)).expect("bind");
            let at = app.local_addr().expect("bound");
            assert!(open(&session, at), "the programs have seen it listen");
            drop(app);
            assert!(!open(&session, at), "and end");
            let own = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
            let refused = session
                .bypass()
                .present(own.as_fd(), address("198.51.100.7:4711"), at);
            assert_eq!(
                refused.expect_err("closed").kind(),
                io::ErrorKind::ConnectionRefused
            );
            let closed = runtime.block_on(async { tokio::time::timeout(PATIENCE, ports.closed()).await });
            closed.expect("a look is asked for");
        });
    });
}

#[test]
fn what_is_mapped_under_the_filter_is_what_bpf_reads_and_what_is_written_there_arrives() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let datapath = pod.attach(Some(&inbound));
        let app = TcpListener::bind((POD4, 0)).expect("bind");
        let port = app.local_addr().expect("bound").port();
        drop(dial(FAR4));
        let names = [map::SETTINGS, map::COUNTERS, map::APP_PORTS, map::INHERITED];
        let [settings, counters, ports, inherited] = names.map(|name| pinned(pod, name));
        let ring = kernel::ring(RING_BYTES as u32).expect("a ring");
        let read = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                filter(Bpf::Kills);
                Ring::new(ring).expect("a ring");
                let found =
                    Writable::new(map::INHERITED, inherited.as_fd(), INHERITED_SLOTS).expect("mapped");
                found.set(Inherited::place(port), &Inherited::NONE.with(port, true));
                (
                    Mapped::<Settings>::new(map::SETTINGS, settings.as_fd(), 1).expect("mapped"),
                    Mapped::<u64>::new(map::COUNTERS, counters.as_fd(), COUNTERS).expect("mapped"),
                    Mapped::<AppPorts>::new(map::APP_PORTS, ports.as_fd(), APP_PORT_SLOTS).expect("mapped"),
                    found,
                )
            });
            reader.join().expect("read")
        });
        let (settings, counters, ports, found) = read;

        let by_bpf: Map<u32, Settings> = pod.map(map::SETTINGS).expect("a map");
        assert_eq!(Some(settings.get(0)), by_bpf.get(&0).expect("asked"));
        assert_eq!(settings.get(0), datapath.session().switches().wanted());
        let by_bpf: Map<u32, u64> = pod.map(map::COUNTERS).expect("a map");
        let rows = (0..COUNTER_ROWS as u32).map(|cpu| Counter::Redirected.slot(cpu));
        let redirected: Vec<u64> = rows.clone().map(|slot| counters.get(slot)).collect();
        let asked: Vec<u64> = rows
            .map(|slot| by_bpf.get(&slot).expect("asked").expect("there"))
            .collect();
        assert_eq!(redirected, asked);
        assert_eq!(redirected.iter().sum::<u64>(), 1);
        assert_eq!(
            ports.get(AppPorts::place(port)).word(),
            AppPorts::one(port, true, false)
        );
        let by_bpf: Map<u32, Inherited> = pod.map(map::INHERITED).expect("a map");
        let written = by_bpf
            .get(&Inherited::place(port))
            .expect("asked")
            .expect("there");
        assert!(written.serves(port, true) && !written.serves(port, false));
        assert_eq!(
            found
                .read()
                .values()
                .filter(|(_, ports)| *ports != Inherited::NONE)
                .count(),
            1
        );
    });
}

#[test]
fn an_array_of_another_size_is_refused_with_its_name() {
    in_pod(|pod| {
        let _datapath = pod.attach(None);
        let refused = [
            (
                "larger",
                mapped::<AppPorts>(pod, map::APP_PORTS, APP_PORT_SLOTS / 2).err(),
            ),
            (
                "smaller",
                mapped::<AppPorts>(pod, map::APP_PORTS, APP_PORT_SLOTS * 2).err(),
            ),
            ("of another kind", mapped::<u64>(pod, map::PENDING, 1).err()),
        ];
        for (what, error) in refused {
            let error = error.unwrap_or_else(|| panic!("{what} is refused"));
            assert!(matches!(error, Error::MapMemory { .. }), "{what}: {error}");
            let name = if what == "of another kind" {
                map::PENDING
            } else {
                map::APP_PORTS
            };
            assert!(error.to_string().contains(name), "{what}: {error}");
        }
        let file: OwnedFd = File::open("/proc/self/exe").expect("a file").into();
        let error = Mapped::<Settings>::new(map::SETTINGS, file.as_fd(), 1).expect_err("no map");
        assert!(error.to_string().contains("it is larger"), "{error}");
    });
}

#[test]
fn a_ring_of_another_size_and_what_is_no_ring_are_refused() {
    in_pod(|pod| {
        let _datapath = pod.attach(None);
        let ring = |bytes: usize| kernel::ring(bytes as u32).expect("a ring");
        Ring::new(ring(RING_BYTES)).expect("of this size");
        let memory = CString::new("memory").expect("no zeros");
        // SAFETY: the kernel reads a name that ends with a zero.
        let file = unsafe { libc::memfd_create(memory.as_ptr(), 0) };
        // SAFETY: a new descriptor that nobody else knows.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        assert!(file.as_raw_fd() >= 0);
        let others = [
            ("smaller", ring(RING_BYTES / 2)),
            ("larger", ring(RING_BYTES * 2)),
            ("an array", pinned(pod, map::APP_PORTS)),
            ("a hash", pinned(pod, map::PENDING)),
            ("a file", file),
        ];
        for (what, other) in others {
            let error = Ring::new(other)
                .err()
                .unwrap_or_else(|| panic!("{what} is refused"));
            assert!(
                error.to_string().contains("no ring of 65536 bytes"),
                "{what}: {error}"
            );
        }
    });
}
