//! Whose pod it is that is attached to: that of the target, never that of the calling thread.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::getppid;
use sidecar_ebpf::abi::{Settings, map, program};
use socket2::Domain;

use super::super::install::links::SK_LOOKUP;
use super::super::map::Map;
use super::super::sys::{self, Scope};
use super::super::{Config, Datapath, Error, Family, Netns, PodTarget, Steered, detach};
use super::pod::{Elsewhere, POD4, POD6, Pod, in_pod};
use super::probe::{FAR4, FAR6, address, listener, original_dst};
use crate::model::Direction;

/// Runs in a network namespace of its own, as an agent of many pods is in none of theirs.
fn from_outside<T: Send>(ask: impl FnOnce(&Netns) -> T + Send) -> T {
    thread::scope(|scope| {
        let outside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
            ask(&Netns::own().expect("a namespace"))
        });
        outside.join().expect("no panic")
    })
}

/// A program of the pod, which is in its cgroup and its namespace. Another thread of this process may be elsewhere.
struct Program(Child);

impl Program {
    fn start() -> Self {
        Self(Command::new("sleep").arg("infinity").spawn().expect("sleep"))
    }

    fn netns(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        self.0.wait().expect("it ends");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

const OWN: &str = "/proc/thread-self/ns/net";

fn open(path: impl AsRef<Path>) -> OwnedFd {
    File::open(path).expect("a file").into()
}

fn attach(pod: &Pod, target: PodTarget) -> Result<Datapath, Error> {
    Datapath::attach(&pod.config, target, pod.lease(&pod.config.pins)?)
}

/// How many programs decide there about connections that arrive.
fn lookups(netns: &Netns) -> usize {
    let attached = sys::attached(netns.as_fd(), SK_LOOKUP, Scope::Target).expect("an answer");
    attached.programs.len()
}

#[test]
fn a_pod_is_attached_to_from_another_network_namespace() {
    in_pod(|pod| {
        let config = &pod.config;
        let cgroup = &config.cgroup;
        let program = Program::start();
        let by_path = || PodTarget::open(cgroup, Some(Path::new(&program.netns())));
        let by_process = || PodTarget::of_process(program.0.id());
        let by_descriptors = || PodTarget::of_descriptors(open(cgroup), open(program.netns()));
        let (outbound, inbound) = (pod.outbound(), pod.inbound());
        let app = listener(Domain::IPV6);
        let port = app.local_addr().expect("bound").port();
        let inside = Netns::own().expect("the pod's");
        for (n, (is_by, target)) in [
            ("path", &by_path as &(dyn Fn() -> Result<PodTarget, Error> + Sync)),
            ("process", &by_process),
            ("descriptors", &by_descriptors),
        ]
        .into_iter()
        .enumerate()
        {
            let lease = pod.lease(&pod.config.pins).expect("nobody else has it");
            let steered = Steered {
                inbound: Some(inbound.as_fd()),
                outbound: Some(outbound.as_fd()),
                hbone: None,
            };
            from_outside(|outside| {
                let target = target().unwrap_or_else(|error| panic!("by {is_by}: {error}"));
                assert_eq!(target.cgroup_path(), cgroup, "by {is_by}");
                assert_ne!(
                    target.netns().cookie().expect("a cookie"),
                    sys::netns_cookie().expect("a cookie")
                );
                let attached = Datapath::attach(config, target, lease);
                let datapath = attached.unwrap_or_else(|error| panic!("by {is_by}: {error}"));
                datapath.session().steer(0, steered).expect("slots");
                assert_eq!(
                    lookups(outside),
                    0,
                    "nothing is attached to the caller's namespace"
                );

                // It dials in the pod, too: outside nobody would answer on loopback, which is down.
                for family in Family::ALL {
                    let seen = datapath.session().proof().look(family);
                    assert!(matches!(seen, Ok(true)), "by {is_by}: {seen:?}");
                    let nonce = family.nonce();
                    let _dialled = datapath
                        .session()
                        .proof()
                        .dial(nonce, Direction::Inbound)
                        .expect("it arrives");
                    let (accepted, _) = inbound.accept().expect("accept");
                    assert_eq!(original_dst(&accepted).map(|at| at.port()), Some(nonce.port()));
                }
            });
            assert_eq!(lookups(&inside), 1, "by {is_by}");
            let settings: Map<u32, Settings> = pod.map(map::SETTINGS).expect("a map");
            let settings = settings.get(&0).expect("an answer").expect("settings");
            assert_eq!(settings.netns, sys::netns_cookie().expect("a cookie"));
            let devices = settings.devices.iter().filter(|device| device.index != 0).count();
            assert_eq!(
                devices,
                nix::net::if_::if_nameindex().expect("devices").iter().count(),
                "lo and eth0"
            );

            for far in [FAR4, FAR6].map(address) {
                TcpStream::connect(far).unwrap_or_else(|error| panic!("by {is_by}: {error}"));
                let (accepted, _) = outbound.accept().expect("accept");
                assert_eq!(original_dst(&accepted), Some(far), "by {is_by}");
            }
            for own in [POD4, POD6] {
                let at = SocketAddr::new(own.parse::<IpAddr>().expect("an address"), port);
                let client = pod.outsider(at);
                client.connect(&at.into()).expect("steered");
                let (accepted, _) = inbound.accept().expect("accept");
                let local = accepted.local_addr().expect("open");
                assert_eq!(local.port(), port, "by {is_by}");
            }
            if n < 2 {
                pod.give_up();
                detach(&pod.config.pins, true).expect("detach");
            }
        }
    });
}

#[test]
fn a_namespace_that_is_none_or_cannot_be_opened_is_refused_with_its_name() {
    in_pod(|pod| {
        let named = |netns: &str| {
            let config = Config {
                netns: Some(netns.into()),
                ..pod.config.clone()
            };
            PodTarget::of(&config).map(drop).unwrap_err()
        };
        let gone = named("/nowhere/net");
        assert!(matches!(gone, Error::NoNetns { .. }), "{gone}");
        for other in ["/proc/self/ns/uts", "/proc/self/status", "/"] {
            let error = named(other);
            assert!(matches!(error, Error::NotNetns { .. }), "{other}: {error}");
            let text = error.to_string();
            assert!(
                text.contains("interception.netns") && text.contains(other),
                "{text}"
            );
        }
        for part in [
            "interception.netns",
            "/nowhere/net",
            "No such file",
            "/run/netns/NAME",
        ] {
            assert!(gone.to_string().contains(part), "{part}: {gone}");
        }
        let no_cgroup = PodTarget::of_descriptors(open("/"), open(OWN)).unwrap_err();
        assert!(matches!(no_cgroup, Error::NotCgroup2 { .. }), "{no_cgroup}");
        let file = PodTarget::of_descriptors(open(pod.config.cgroup.join("cgroup.procs")), open(OWN));
        assert!(matches!(file, Err(Error::NotCgroup2 { .. })), "{file:?}");
    });
}

/// As the agent sees a sidecar: one is root without CAP_KILL, the other an ordinary user.
#[test]
fn a_process_that_may_not_be_signalled_is_there_until_it_has_ended() {
    in_pod(|_| {
        let mut program = Program::start();
        let pidfd = sys::pidfd_open(program.0.id()).expect("it runs");
        let asked = || {
            // A thread's own, and with the user its capabilities go.
            // SAFETY: three numbers; it changes this thread alone, which ends at once.
            let failed = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, 65533, 65533, 65533) };
            assert_eq!(failed, 0);
            sys::pidfd_exists(pidfd.as_fd())
        };
        std::thread::scope(|scope| scope.spawn(asked).join().unwrap()).expect("it runs");
        program.end();
        let gone = std::thread::scope(|scope| scope.spawn(asked).join().unwrap());
        assert_eq!(gone.unwrap_err().raw_os_error(), Some(nix::libc::ESRCH));
    });
}

#[test]
fn a_process_that_has_ended_is_no_pod() {
    in_pod(|_| {
        let mut program = Program::start();
        let pid = program.0.id();
        let pidfd = sys::pidfd_open(pid).expect("it runs");
        let target = PodTarget::of_process(pid).expect("it is in this pod");
        assert_eq!(target.netns().inode(), Netns::own().expect("the pod's").inode());
        sys::pidfd_exists(pidfd.as_fd()).expect("it runs");
        program.end();
        let gone = sys::pidfd_exists(pidfd.as_fd()).unwrap_err();
        assert_eq!(
            gone.raw_os_error(),
            Some(nix::libc::ESRCH),
            "whoever has its number now is another"
        );
        let error = PodTarget::of_process(pid).map(drop).unwrap_err();
        assert!(
            matches!(error, Error::Process { pid: of, .. } if of == pid),
            "{error}"
        );
        // What was opened while it ran is still the same pod.
        target.netns().within(|| ()).expect("it is entered");
    });
}

#[test]
fn the_cgroup_of_one_pod_does_not_go_with_the_namespace_of_another() {
    in_pod(|pod| {
        // Nobody is in it any more but, for a moment, the thread that has made it.
        let other = from_outside(Netns::clone);
        let target = |cgroup: &Path| {
            let netns = other.as_fd().try_clone_to_owned().expect("a descriptor");
            PodTarget::of_descriptors(open(cgroup), netns).expect("both exist")
        };
        let error = attach(pod, target(&pod.config.cgroup)).map(drop).unwrap_err();
        assert!(matches!(error, Error::OtherPod { .. }), "{error}");
        let text = error.to_string();
        let cgroup = pod.config.cgroup.to_str().expect("a name");
        for part in [cgroup, "interception.netns to /proc/", "interception.cgroup"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(lookups(&other), 0, "nothing was attached");
        assert_eq!(
            lookups(&Netns::own().expect("the pod's")),
            0,
            "nothing was attached"
        );

        // In an empty cgroup nobody says where it belongs.
        let elsewhere = Elsewhere::new(pod);
        let datapath = attach(pod, target(&elsewhere.0.cgroup)).expect("nothing speaks against it");
        assert_eq!(lookups(&other), 1);
        drop(datapath);
        detach(&pod.config.pins, true).expect("detach");
    });
}

#[test]
fn pins_of_the_same_cgroup_in_another_namespace_are_not_taken_over() {
    in_pod(|pod| {
        let elsewhere = Elsewhere::new(pod);
        let config = &elsewhere.0;
        let target = || PodTarget::of(config).expect("a pod");
        let inside = target();
        drop(attach(pod, inside).expect("attach"));
        pod.give_up();
        let lease = pod.lease(&pod.config.pins).expect("nobody else has it");
        let error = from_outside(|_| Datapath::attach(config, target(), lease).map(drop)).unwrap_err();
        let Error::OtherTarget { pin, .. } = &error else {
            panic!("{error}");
        };
        assert!(pin.ends_with(program::SK_LOOKUP), "{error}");
        detach(&pod.config.pins, true).expect("detach");
    });
}

#[test]
fn the_namespace_of_the_host_is_refused_by_whatever_name() {
    in_pod(|pod| {
        // The one that the tests were started in. In a container it is not the host's.
        let config = Config {
            netns: Some(format!("/proc/{}/ns/net", getppid()).into()),
            ..pod.config.clone()
        };
        let target = PodTarget::of(&config).expect("a namespace");
        let error = attach(pod, target).map(drop).unwrap_err();
        let is_refused = matches!(error, Error::HostNetwork | Error::OtherPod { .. });
        assert!(is_refused, "{error}");
        assert!(!pod.config.pins.join("links").exists(), "nothing was attached");
    });
}
