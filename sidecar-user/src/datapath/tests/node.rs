//! Facts about one load of the programs that serves many pods.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Instant;
use std::{process, thread};

use nix::sched::{CloneFlags, setns, unshare};
use sidecar_ebpf::abi::{map, program};

use super::super::install::pins;
use super::super::{Config, Datapath, Former, Lease, Node, PodTarget, Steered, sys};
use super::pod::{Pod, eventually, in_pod, steered};
use super::probe::{FAR4, FAR6, address, counter, original_dst};

/// A pod of its own beside others of the node.
struct OfNode {
    config: Config,
    netns: File,
    datapath: Datapath,
    outbound: TcpListener,
}

impl OfNode {
    fn new(pod: &Pod, node: &Node, name: &str) -> Self {
        let netns = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
            let up = process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.is_ok_and(|status| status.success()));
            File::open("/proc/thread-self/ns/net").expect("its file")
        });
        let netns = netns.join().expect("a namespace");
        let config = Config {
            cgroup: pod.config.cgroup.join(name),
            netns: Some(format!("/proc/{}/fd/{}", process::id(), netns.as_raw_fd()).into()),
            pins: pods(pod).join(name),
            ..pod.config.clone()
        };
        fs::create_dir_all(&config.cgroup).expect("a cgroup");
        let (datapath, outbound) = attach(pod, node, &config, &netns);
        Self {
            config,
            netns,
            datapath,
            outbound,
        }
    }

    /// In the pod's network namespace and cgroup.
    fn within<T: Send>(&self, ask: impl FnOnce() -> T + Send) -> T {
        enter(&self.config.cgroup);
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.netns, CloneFlags::CLONE_NEWNET).expect("setns");
                ask()
            });
            inside.join().expect("asked")
        })
    }

    /// The program that a pinned link holds.
    fn program(&self, name: &str) -> u32 {
        let link = sys::open_pin(&pins::link(&self.config.pins, name)).expect("a link");
        sys::link_info(link.as_fd()).expect("its program").program
    }
}

/// As [`Datapath::attach`] does for a pod by itself.
fn attach(pod: &Pod, node: &Node, config: &Config, netns: &File) -> (Datapath, TcpListener) {
    // A socket is of the cgroup that it was made in.
    enter(&config.cgroup);
    let outbound = thread::scope(|scope| {
        let made = scope.spawn(|| {
            setns(netns, CloneFlags::CLONE_NEWNET).expect("setns");
            steered()
        });
        made.join().expect("a listener")
    });
    enter(&pod.config.cgroup);
    let lease = Lease::take(&config.pins).expect("a lease");
    let target = PodTarget::of(config).expect("a pod");
    let datapath = Datapath::prepare_on(Some(node), config, target, lease, Former::Gone).expect("prepared");
    datapath.activate().expect("attached");
    let steered = Steered {
        outbound: Some(outbound.as_fd()),
        ..Steered::default()
    };
    datapath.session().steer(0, steered).expect("steered");
    (datapath, outbound)
}

fn enter(cgroup: &std::path::Path) {
    fs::write(cgroup.join("cgroup.procs"), process::id().to_string()).expect("a cgroup to enter");
}

fn pods(pod: &Pod) -> PathBuf {
    pod.config.pins.with_file_name("pods")
}

fn node_pins(pod: &Pod) -> PathBuf {
    pod.config.pins.with_file_name("shared")
}

/// The pods' cgroups go with the last process.
fn leave(pod: &Pod, all: Vec<OfNode>) {
    enter(&pod.config.cgroup);
    let cgroups: Vec<PathBuf> = all.iter().map(|of| of.config.cgroup.clone()).collect();
    drop(all);
    // A thread that has been joined is in its cgroup for a moment yet, and a thread on its way out does not move with its
    // process: EBUSY until then.
    for cgroup in cgroups {
        eventually("the cgroup is empty", || fs::remove_dir(&cgroup).is_ok());
    }
}

#[test]
fn pods_of_one_load_share_programs_and_each_has_its_own_connections() {
    in_pod(|pod| {
        let node = Node::load(&node_pins(pod)).expect("loaded");
        let all = ["a", "b"].map(|name| OfNode::new(pod, &node, name));
        let [a, b] = &all;
        for name in [program::CONNECT4, program::SOCKOPS, program::GETSOCKOPT] {
            assert_eq!(a.program(name), b.program(name), "{name}");
        }
        assert_ne!(
            a.program(program::SK_LOOKUP),
            b.program(program::SK_LOOKUP),
            "it is not told which pod it runs for"
        );
        for of in [a, b, a] {
            for far in [FAR4, FAR6] {
                let client = of.within(|| TcpStream::connect(address(far)).expect("connected"));
                let (accepted, _) = of.outbound.accept().expect("accepted");
                assert_eq!(original_dst(&accepted), Some(address(far)));
                drop(client);
            }
        }
        assert_eq!(counter(&a.datapath, "claimed"), 4);
        assert_eq!(
            counter(&b.datapath, "claimed"),
            2,
            "another pod's are not counted"
        );
        leave(pod, all.into());
    });
}

#[test]
fn a_node_that_is_loaded_again_adopts_its_pods_without_a_gap() {
    in_pod(|pod| {
        let node = Node::load(&node_pins(pod)).expect("loaded");
        let of = OfNode::new(pod, &node, "a");
        let held = of.within(|| TcpStream::connect(address(FAR4)).expect("connected"));
        let (before, _) = of.outbound.accept().expect("accepted");
        // The node's process ends: nothing of what it has pinned does.
        drop(node);
        let client = of.within(|| TcpStream::connect(address(FAR6)).expect("connected"));
        let (accepted, _) = of.outbound.accept().expect("accepted");
        assert_eq!(original_dst(&accepted), Some(address(FAR6)));
        drop(client);

        let OfNode {
            config,
            netns,
            datapath,
            outbound,
        } = of;
        drop((datapath, outbound));
        let node = Node::load(&node_pins(pod)).expect("loaded again");
        let (datapath, outbound) = attach(pod, &node, &config, &netns);
        let of = OfNode {
            config,
            netns,
            datapath,
            outbound,
        };
        let client = of.within(|| TcpStream::connect(address(FAR4)).expect("connected"));
        let (accepted, _) = of.outbound.accept().expect("accepted");
        assert_eq!(original_dst(&accepted), Some(address(FAR4)));
        assert_eq!(
            original_dst(&before),
            Some(address(FAR4)),
            "what was accepted before"
        );
        assert_eq!(counter(&of.datapath, "claimed"), 3, "its maps are the same");
        drop((client, held));
        leave(pod, vec![of]);
    });
}

#[test]
fn a_pod_that_is_given_up_leaves_its_number_to_the_next() {
    in_pod(|pod| {
        let node = Node::load(&node_pins(pod)).expect("loaded");
        let (a, b) = (OfNode::new(pod, &node, "a"), OfNode::new(pod, &node, "b"));
        let numbers = || {
            let pin = pins::map(&node_pins(pod), map::PODS);
            let map = super::super::map::Map::<u64, u32>::pinned(map::PODS, &pin).expect("pinned");
            let mut numbers: Vec<u32> = map
                .entries()
                .expect("entries")
                .into_iter()
                .map(|(_, n)| n)
                .collect();
            numbers.sort_unstable();
            numbers
        };
        assert_eq!(numbers(), [0, 1]);
        let cookie = a.datapath.pod().netns().cookie().expect("a cookie");
        super::super::detach(&a.config.pins, false).expect_err("its lease is held");
        let config = a.config.clone();
        leave(pod, vec![a]);
        super::super::detach(&config.pins, false).expect("detached");
        node.forget(cookie).expect("forgotten");
        assert_eq!(numbers(), [1]);
        let c = OfNode::new(pod, &node, "c");
        assert_eq!(numbers(), [0, 1]);
        leave(pod, vec![b, c]);
    });
}

/// Not asserted but for a generous bound, because the machine may be busy: printed, for a look.
#[test]
fn another_pod_takes_little_time_and_memory() {
    in_pod(|pod| {
        let begun = Instant::now();
        let node = Node::load(&node_pins(pod)).expect("loaded");
        println!("the node's programs: {:?}", begun.elapsed());
        let mut all = Vec::new();
        for n in 0..20 {
            let begun = Instant::now();
            all.push(OfNode::new(pod, &node, &format!("p{n}")));
            println!("pod {n}: {:?}", begun.elapsed());
        }
        leave(pod, all);
    });
}
