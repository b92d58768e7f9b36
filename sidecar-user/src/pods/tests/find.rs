//! Pods by path, process and UID, and whose network namespace is believed.

use std::env;
use std::net::IpAddr;
use std::process::{self, Command};
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::super::find::netns_of;
use super::super::{Error, PodCgroup};
use super::subtree::{CID, OTHER, PATIENCE, Process, Subtree, UID, eventually};

/// Set where a test runs once more.
const VISITOR: &str = "OUTRIGGER_TEST_VISITOR";
const HIDDEN: &str = "OUTRIGGER_TEST_HIDDEN";

fn pod(tree: &Subtree, below: &str) -> PodCgroup {
    PodCgroup::open(&tree.make(below)).expect("a cgroup")
}

fn assert_names(error: &Error, named: &[&str]) {
    for name in named {
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
}

#[test]
fn path_process_and_uid_lead_to_the_same_pod() {
    let tree = Subtree::new();
    let finder = tree.finder();
    let leaf = tree.make(&format!("kubepods/burstable/pod{UID}/{CID}"));
    let inner = tree.make(&format!("kubepods/burstable/pod{UID}/{CID}/inner"));
    let process = Process::isolated().enter(&inner);
    let expected = tree.path.join(format!("kubepods/burstable/pod{UID}"));
    let found = [
        finder.by_path(&expected),
        finder.by_path(&leaf),
        finder.by_pid(process.pid()),
        finder.by_uid(&UID.parse().expect("a UID"), None),
    ];
    for found in found {
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found.path(), expected);
        assert_eq!(found.uid().map(|uid| uid.as_str()), Some(UID));
        let target = finder
            .target(&found, &[])
            .expect("one namespace")
            .expect("a process");
        assert_eq!(Some(target.netns().inode()), process.netns());
        assert_eq!(
            (target.cgroup_id(), target.cgroup_path()),
            (found.id(), found.path())
        );
    }
}

#[test]
fn a_pod_made_by_hand_is_the_child_of_its_directory() {
    let tree = Subtree::new();
    let finder = tree.finder();
    let inner = tree.make("pods/web/inner");
    let process = Process::isolated().enter(&inner);
    for found in [finder.by_path(&inner), finder.by_pid(process.pid())] {
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found.path(), tree.path.join("pods/web"));
        assert_eq!((found.name().to_str(), found.uid()), (Some("web"), None));
    }
    // Neither Kubernetes' nor in a directory of pods: the cgroup that was named.
    let lone = tree.make("lone");
    assert_eq!(finder.by_path(&lone).expect("a cgroup").path(), lone);
}

#[test]
fn what_is_no_pod_is_refused() {
    let tree = Subtree::new();
    let finder = tree.finder();
    tree.make("kubepods/burstable");
    for above in ["pods", "kubepods", "kubepods/burstable", ""] {
        let path = tree.make(above);
        let error = finder.by_path(&path).unwrap_err();
        assert!(matches!(error, Error::AbovePods { .. }), "{error}");
        assert_names(&error, &[path.to_str().expect("text").trim_end_matches('/')]);
    }
    let joined = tree.make(&format!("kubepods-pod{UID}.slice:cri-containerd:{CID}"));
    let error = finder.by_path(&joined).unwrap_err();
    assert!(matches!(error, Error::OneContainer { .. }), "{error}");
    let error = finder.by_path("/proc".as_ref()).unwrap_err();
    assert!(matches!(error, Error::NotCgroup2 { .. }), "{error}");
    let error = finder.by_path(&tree.path.join("missing")).unwrap_err();
    assert!(matches!(error, Error::Path { .. }), "{error}");
    assert_names(&error, &["missing"]);
}

#[test]
fn a_process_that_is_gone_is_refused_by_its_number() {
    let tree = Subtree::new();
    let process = Process::of_host();
    let pid = process.pid();
    process.end();
    let error = tree.finder().by_pid(pid).unwrap_err();
    assert!(matches!(error, Error::Gone { .. }), "{error}");
    assert_names(&error, &[&pid.to_string()]);
}

#[test]
fn beyond_the_own_cgroup_namespace_a_pod_is_found_by_its_uid() {
    let tree = Subtree::new();
    let finder = tree.finder();
    let expected = tree.make(&format!("n2/kubepods/besteffort/pod{UID}"));
    let found = finder
        .of_lines(7, &format!("0::/../../pod{UID}/{CID}\n"))
        .expect("mounted");
    assert_eq!(found.path(), expected);
    let crio = format!("/../crio-{CID}.scope");
    let error = finder.of_lines(7, &format!("0::{crio}\n")).unwrap_err();
    assert!(matches!(error, Error::Outside { pid: 7, .. }), "{error}");
    assert_names(&error, &["7", &crio]);
    let error = finder
        .of_lines(
            7,
            &format!("4:cpu:/kubepods/pod{UID}/{CID}\n0::/kubepods/pod{OTHER}/{CID}\n"),
        )
        .unwrap_err();
    assert!(matches!(error, Error::TwoPods { .. }), "{error}");
}

#[test]
fn an_empty_pod_has_no_namespace_yet() {
    let tree = Subtree::new();
    let pod = pod(&tree, "pods/web");
    tree.make("pods/web/inner");
    assert!(tree.finder().target(&pod, &[]).expect("no error").is_none());
    // Nor one that has been removed.
    super::subtree::remove(pod.path());
    assert!(tree.finder().target(&pod, &[]).expect("no error").is_none());
}

#[test]
fn the_namespace_of_the_host_is_refused() {
    let tree = Subtree::new();
    let pod = pod(&tree, "pods/web");
    let process = Process::of_host().enter(pod.path());
    let error = tree.finder().target(&pod, &[]).unwrap_err();
    assert!(
        matches!(error, Error::HostNamespace { .. }) && error.may_pass(),
        "{error}"
    );
    assert_names(
        &error,
        &[&process.pid().to_string(), pod.path().to_str().expect("text")],
    );
    // It is passed over where others have entered the pod's.
    let isolated = Process::isolated().enter(pod.path());
    let target = tree
        .finder()
        .target(&pod, &[])
        .expect("the pod's")
        .expect("a process");
    assert_eq!(Some(target.netns().inode()), isolated.netns());
}

#[test]
fn processes_of_two_namespaces_are_refused_with_both() {
    let tree = Subtree::new();
    let pod = pod(&tree, "pods/web");
    let (a, b) = (tree.make("pods/web/a"), tree.make("pods/web/b"));
    let first = Process::isolated().enter(&a);
    let beside = Process::beside(&first).enter(&b);
    tree.finder()
        .target(&pod, &[])
        .expect("the same")
        .expect("processes");
    beside.end();
    let other = Process::isolated().enter(&b);
    let error = tree.finder().target(&pod, &[]).unwrap_err();
    assert!(
        matches!(error, Error::TwoNamespaces { .. }) && error.may_pass(),
        "{error}"
    );
    for process in [&first, &other] {
        let netns = process.netns().expect("it runs").to_string();
        assert_names(&error, &[&process.pid().to_string(), &netns]);
    }
}

#[test]
fn a_thread_that_visits_another_namespace_is_passed_over() {
    if env::var_os(VISITOR).is_some() {
        let visit = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace for this thread");
            println!("visiting");
            loop {
                thread::park();
            }
        };
        thread::spawn(visit).join().expect("it stays");
    }
    let tree = Subtree::new();
    let pod = pod(&tree, "pods/web");
    let mut process = Process::again("unshare --net", VISITOR, "1");
    process.says("visiting");
    let process = process.enter(pod.path());
    let target = tree
        .finder()
        .target(&pod, &[])
        .expect("one namespace")
        .expect("a process");
    assert_eq!(Some(target.netns().inode()), process.netns());
}

#[test]
fn processes_that_the_own_pid_namespace_hides_are_refused() {
    if let Some(path) = env::var_os(HIDDEN) {
        let pod = PodCgroup::open(path.as_ref()).expect("a cgroup");
        let error = pod.members().unwrap_err();
        assert!(matches!(error, Error::Hidden { .. }), "{error}");
        assert_names(&error, &[pod.path().to_str().expect("text"), "hostPID"]);
        println!("refused");
        return;
    }
    let tree = Subtree::new();
    let pod = pod(&tree, "pods/web");
    let _process = Process::isolated().enter(pod.path());
    assert_eq!(pod.members().expect("shown here").len(), 1);
    let mut elsewhere = Process::again("unshare --pid --fork --mount-proc", HIDDEN, pod.path());
    elsewhere.says("refused");
}

#[test]
fn a_process_that_has_ended_or_left_the_pod_speaks_for_nobody() {
    let tree = Subtree::new();
    let pod = pod(&tree, "pods/web");
    let process = Process::isolated().enter(pod.path());
    let members = pod.members().expect("readable");
    let [member] = &members[..] else {
        panic!("{members:?}")
    };
    let netns = || netns_of(&pod, member).expect("no error");
    assert!(netns().is_some());
    // Its number could be that of any other process from now on.
    let process = process.enter(&tree.make("elsewhere"));
    assert!(netns().is_none());
    let process = process.enter(pod.path());
    assert!(netns().is_some());
    process.end();
    assert!(netns().is_none());
}

#[test]
fn a_pidfd_tells_a_process_from_the_next_one_of_its_number() {
    let process = Process::isolated();
    let opened = crate::datapath::Process::open(process.pid())
        .expect("allowed")
        .expect("it runs");
    assert!(opened.has_its_number() && opened.netns().expect("allowed").is_some());
    process.end();
    assert!(!opened.has_its_number());
    assert!(opened.netns().expect("no error").is_none());
}

#[test]
fn a_namespace_without_the_addresses_of_the_pod_is_refused() {
    let tree = Subtree::new();
    let finder = tree.finder();
    let pod = pod(&tree, "pods/web");
    let process = Process::isolated().enter(pod.path());
    let ip = |words: &str| {
        let status = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", process.pid()))
            .args(format!("ip {words}").split(' '))
            .status();
        assert!(status.expect("ip is installed").success(), "{words}");
    };
    ip("link set lo up");
    ip("addr add 10.98.7.2/32 dev lo");
    let (own, other): (IpAddr, IpAddr) = ("10.98.7.2".parse().unwrap(), "fd98::2".parse().unwrap());
    let mapped = "::ffff:10.98.7.2".parse().unwrap();
    // One of them: the pod's other family may come later.
    for addresses in [[other, own], [other, mapped]] {
        assert!(finder.target(&pod, &addresses).expect("one of them").is_some());
    }
    let error = finder.target(&pod, &[other]).unwrap_err();
    assert!(
        matches!(error, Error::OtherAddresses { .. }) && error.may_pass(),
        "{error}"
    );
    assert_names(&error, &["fd98::2", "10.98.7.2", &process.pid().to_string()]);
}

#[tokio::test]
async fn a_container_that_is_about_to_start_is_waited_for() {
    let tree = Subtree::new();
    let finder = tree.finder();
    let pod = pod(&tree, "pods/web");
    let mut process = Process::about_to_start().enter(pod.path());
    let error = finder
        .settled(&pod, &[], std::time::Duration::ZERO)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::HostNamespace { .. }), "{error}");
    let settled = finder.settled(&pod, &[], PATIENCE);
    let start = async {
        tokio::task::yield_now().await;
        process.go();
    };
    let (settled, ()) = tokio::join!(settled, start);
    let target = settled.expect("a pod").expect("a process");
    eventually("sleep runs", || process.netns() == Some(target.netns().inode()));
    assert_ne!(
        target.netns().inode(),
        super::subtree::netns("self").expect("own")
    );
    assert_ne!(process.pid(), process::id());
}
