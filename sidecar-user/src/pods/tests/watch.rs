//! Pods that come and go, on real cgroups.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::inotify::AddWatchFlags;
use tokio::time::timeout;

use super::super::{Error, Event, PodCgroup, Roots, Watch};
use super::subtree::{CID, PATIENCE, Process, Subtree, UID, remove};

/// Set where a test runs once more.
const LIMITED: &str = "OUTRIGGER_TEST_LIMITED";

async fn next(watch: &mut Watch) -> Event {
    let next = timeout(PATIENCE, watch.next()).await;
    next.expect("an event").unwrap_or_else(|error| panic!("{error}"))
}

/// The event in a word, and of whom.
fn told(event: &Event) -> (&'static str, PathBuf) {
    let (word, pod) = match event {
        Event::Appeared(pod) => ("appeared", pod),
        Event::Populated(pod) => ("populated", pod),
        Event::Emptied(pod) => ("emptied", pod),
        Event::Gone(pod) => ("gone", pod),
    };
    (word, pod.path().into())
}

async fn expect(watch: &mut Watch, word: &'static str, path: &Path) {
    assert_eq!(told(&next(watch).await), (word, path.to_owned()));
}

/// Follows the events until these pods are there, and each but these is gone. Each appears before it goes.
async fn follow(watch: &mut Watch, there: &mut BTreeMap<u64, PathBuf>, wanted: &BTreeSet<PathBuf>) {
    while there.values().cloned().collect::<BTreeSet<_>>() != *wanted || there.len() != wanted.len() {
        match next(watch).await {
            Event::Appeared(pod) => assert!(there.insert(pod.id(), pod.path().into()).is_none()),
            Event::Gone(pod) => assert!(there.remove(&pod.id()).is_some(), "{:?}", pod.path()),
            Event::Populated(_) | Event::Emptied(_) => {}
        }
    }
}

/// Watches of the kernel, and descriptors of directories below the tree.
fn held(watch: &Watch, tree: &Subtree) -> (usize, usize, usize) {
    let (inotify, nodes) = watch.inner();
    let info = format!("/proc/self/fdinfo/{}", inotify.as_fd().as_raw_fd());
    let info = fs::read_to_string(info).expect("own descriptor");
    let watches = info
        .lines()
        .filter(|line| line.starts_with("inotify wd:"))
        .count();
    let descriptors = fs::read_dir("/proc/self/fd").expect("own descriptors").flatten();
    let below = descriptors.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(&tree.path)));
    (nodes.watched(), watches, below.count())
}

#[tokio::test]
async fn pods_are_told_of_from_their_cgroup_to_its_end() {
    let tree = Subtree::new();
    let early = tree.make(&format!("kubepods/pod{UID}"));
    let mut watch = Watch::new(&tree.roots()).expect("watched");
    expect(&mut watch, "appeared", &early).await;
    let web = tree.make("pods/web");
    expect(&mut watch, "appeared", &web).await;
    let leaf = tree.make("pods/web/leaf");
    let process = Process::of_host().enter(&leaf);
    expect(&mut watch, "populated", &web).await;
    let second = Process::of_host().enter(&early);
    expect(&mut watch, "populated", &early).await;
    process.end();
    expect(&mut watch, "emptied", &web).await;
    let process = Process::of_host().enter(&leaf);
    expect(&mut watch, "populated", &web).await;
    process.end();
    expect(&mut watch, "emptied", &web).await;
    remove(&web);
    expect(&mut watch, "gone", &web).await;
    drop(second);
    let paths: Vec<_> = watch.pods().map(|pod| pod.path().to_owned()).collect();
    assert_eq!(paths, [early]);
}

#[tokio::test]
async fn a_pod_that_was_asked_for_is_followed_to_its_end_and_no_other_by_its_name() {
    let tree = Subtree::new();
    let mut watch = Watch::new(&tree.roots()).expect("watched");
    for above in ["elsewhere", "elsewhere/deep"] {
        let asked = tree.make(&format!("{above}/one"));
        let other = tree.make(&format!("{above}/two"));
        watch
            .follow(&PodCgroup::open(&asked).expect("a cgroup"))
            .expect("followed");
        expect(&mut watch, "appeared", &asked).await;
        let process = Process::of_host().enter(&asked);
        expect(&mut watch, "populated", &asked).await;
        process.end();
        expect(&mut watch, "emptied", &asked).await;
        remove(&asked);
        expect(&mut watch, "gone", &asked).await;
        // Neither its name nor its neighbour is a pod: the next one that is told of is another.
        let again = tree.make(&format!("{above}/one"));
        let web = tree.make("pods/web");
        expect(&mut watch, "appeared", &web).await;
        remove(&web);
        expect(&mut watch, "gone", &web).await;
        remove(&again);
        remove(&other);
    }
}

#[tokio::test]
async fn processes_that_follow_others_unseen_are_told_of_again() {
    let tree = Subtree::new();
    let web = tree.make("pods/web");
    let mut watch = Watch::new(&tree.roots()).expect("watched");
    expect(&mut watch, "appeared", &web).await;
    let first = Process::of_host().enter(&web);
    expect(&mut watch, "populated", &web).await;
    // Nothing is read in between, so that the pod looks populated before and after.
    first.end();
    let _second = Process::of_host().enter(&web);
    expect(&mut watch, "populated", &web).await;
}

#[tokio::test]
async fn a_pod_that_runs_at_the_start_is_told_of_with_its_processes() {
    let tree = Subtree::new();
    let web = tree.make("pods/web");
    let _process = Process::of_host().enter(&web);
    let mut watch = Watch::new(&tree.roots()).expect("watched");
    expect(&mut watch, "appeared", &web).await;
    expect(&mut watch, "populated", &web).await;
}

#[tokio::test]
async fn directories_that_are_made_late_are_watched_too() {
    let tree = Subtree::new();
    let mut watch = Watch::new(&tree.roots()).expect("watched");
    let uid_ = UID.replace('-', "_");
    let slice = "system.slice/docker-x.scope/kubelet.slice/kubelet-kubepods.slice";
    for (above, name) in [
        ("kubepods/burstable", format!("pod{UID}")),
        (slice, format!("kubelet-kubepods-pod{uid_}.slice")),
        (
            &format!("{slice}/kubelet-kubepods-besteffort.slice"),
            format!("kubelet-kubepods-besteffort-pod{uid_}.slice"),
        ),
        ("pods", "web".into()),
    ] {
        // Those above and the pod at once, the pod alone, and all anew.
        let pod = tree.make(&format!("{above}/{name}"));
        tree.make(&format!("{above}/{name}/{CID}"));
        expect(&mut watch, "appeared", &pod).await;
        remove(&pod);
        expect(&mut watch, "gone", &pod).await;
        tree.make(&format!("{above}/{name}"));
        expect(&mut watch, "appeared", &pod).await;
        let top = tree.path.join(above.split('/').next().expect("a name"));
        if above != slice {
            remove(&top);
            expect(&mut watch, "gone", &pod).await;
            tree.make(&format!("{above}/{name}"));
            expect(&mut watch, "appeared", &pod).await;
        }
        remove(&pod);
        expect(&mut watch, "gone", &pod).await;
    }
}

#[tokio::test]
async fn what_is_no_pod_is_not_told_of() {
    let tree = Subtree::new();
    let mut watch = Watch::new(&tree.roots()).expect("watched");
    tree.make(&format!("kubepods/{CID}"));
    tree.make("kubepods/burstable/other");
    tree.make(&format!(
        "system.slice/kubepods-pod{UID}.slice:cri-containerd:{CID}"
    ));
    tree.make("a/b/c/d/kubepods/burstable");
    tree.make(&format!("a/b/c/d/kubepods/pod{UID}"));
    let pod = tree.make(&format!("kubepods/burstable/pod{UID}"));
    tree.make(&format!("kubepods/burstable/pod{UID}/{CID}"));
    expect(&mut watch, "appeared", &pod).await;
    remove(&pod);
    expect(&mut watch, "gone", &pod).await;
}

#[tokio::test]
async fn a_burst_of_pods_loses_none_and_leaves_nothing() {
    let tree = Subtree::new();
    let mut watch = Watch::new(&tree.roots()).expect("watched");
    let above = tree.make("kubepods/burstable");
    let pods = |range: std::ops::Range<u32>| -> BTreeSet<PathBuf> {
        range.map(|n| above.join(format!("pod{n:032x}"))).collect()
    };
    let mut there = BTreeMap::new();
    let sentinel = tree.make("pods/sentinel");
    follow(&mut watch, &mut there, &[sentinel.clone()].into()).await;
    let before = held(&watch, &tree);

    // Half of them live shorter than it takes to look.
    let made = pods(0..200);
    let burst = thread::spawn(move || {
        for (n, pod) in made.iter().enumerate() {
            fs::create_dir(pod).expect("a cgroup");
            if n % 2 == 0 {
                fs::remove_dir(pod).expect("removed");
            }
            if n % 4 == 0 {
                fs::create_dir(pod).expect("again");
            }
        }
    });
    let stay = pods(0..200)
        .into_iter()
        .enumerate()
        .filter(|(n, _)| n % 2 == 1 || n % 4 == 0);
    let mut wanted: BTreeSet<PathBuf> = stay.map(|(_, pod)| pod).collect();
    wanted.insert(sentinel.clone());
    follow(&mut watch, &mut there, &wanted).await;
    burst.join().expect("made");
    follow(&mut watch, &mut there, &wanted).await;

    let removed = thread::spawn(move || remove(&above));
    follow(&mut watch, &mut there, &[sentinel].into()).await;
    removed.join().expect("removed");
    // What was above them is gone as well, as soon as its event is taken.
    remove(&tree.path.join("kubepods"));
    let last = tree.make("pods/last");
    while told(&next(&mut watch).await) != ("appeared", last.clone()) {}
    remove(&last);
    expect(&mut watch, "gone", &last).await;
    let (nodes, watches, descriptors) = held(&watch, &tree);
    assert_eq!(
        (nodes + 2, watches + 2, descriptors),
        before,
        "kubepods and its class are gone"
    );
}

#[tokio::test]
async fn an_overflow_of_the_kernels_queue_loses_no_pod() {
    let tree = Subtree::new();
    let gone = tree.make("pods/gone");
    let late = tree.make("pods/late");
    let mut watch = Watch::new(&tree.roots()).expect("watched");
    let mut there = BTreeMap::new();
    follow(&mut watch, &mut there, &[gone.clone(), late.clone()].into()).await;

    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a limit");
    let most: usize = most.trim().parse().expect("a number");
    let (inotify, _) = watch.inner();
    // Each watch that is removed puts an event into the queue.
    for _ in 0..most {
        let added = inotify
            .add_watch("/tmp", AddWatchFlags::IN_DELETE_SELF)
            .expect("a watch");
        inotify.rm_watch(added).expect("removed");
    }
    remove(&gone);
    let come = tree.make(&format!("kubepods/besteffort/pod{UID}"));
    let _process = Process::of_host().enter(&late);
    let (mut populated, wanted) = (false, BTreeSet::from([late.clone(), come]));
    while !populated || there.values().cloned().collect::<BTreeSet<_>>() != wanted {
        match next(&mut watch).await {
            Event::Appeared(pod) => drop(there.insert(pod.id(), pod.path().into())),
            Event::Gone(pod) => drop(there.remove(&pod.id())),
            Event::Populated(pod) => populated |= pod.path() == late,
            Event::Emptied(_) => {}
        }
    }
}

/// The limit is that of a user namespace, so that nobody else feels it.
#[tokio::test]
async fn where_no_watch_is_left_a_pod_is_told_of_once_there_is_one() {
    let Some(path) = env::var_os(LIMITED) else {
        let tree = Subtree::new();
        let mut limited = Process::again("unshare --user --map-root-user", LIMITED, &tree.path);
        return limited.says("caught up");
    };
    let path = Path::new(&path);
    let limit =
        |most: usize| fs::write("/proc/sys/user/max_inotify_watches", most.to_string()).expect("own limit");
    let pods = path.join("pods");
    fs::create_dir(&pods).expect("a cgroup");
    let roots = Roots::below(vec![path.into()], std::slice::from_ref(&pods)).expect("roots");
    limit(3);
    let mut watch = Watch::new(&roots).expect("two directories");
    for name in ["a", "b", "c"] {
        fs::create_dir(pods.join(name)).expect("a cgroup");
    }
    let Event::Appeared(first) = next(&mut watch).await else {
        panic!("one more can be watched")
    };
    let error = watch.next().await.expect_err("no watch is left");
    assert!(matches!(error, Error::Watch { .. }), "{error}");
    assert!(error.to_string().contains("max_user_watches"), "{error}");
    assert!(error.to_string().contains("/pods/"), "{error}");
    watch.next().await.expect_err("still none");
    limit(100);
    let mut told = BTreeSet::from([first.path().to_owned()]);
    for _ in 0..2 {
        let Event::Appeared(pod) = next(&mut watch).await else {
            panic!("the others have appeared")
        };
        told.insert(pod.path().into());
    }
    assert_eq!(told, ["a", "b", "c"].map(|name| pods.join(name)).into());
    println!("caught up");
}

#[tokio::test]
async fn a_pod_that_is_made_anew_under_its_name_is_another_one() {
    let tree = Subtree::new();
    let web = tree.make("pods/web");
    let mut watch = Watch::new(&tree.roots()).expect("watched");
    let Event::Appeared(first) = next(&mut watch).await else {
        panic!("it is there")
    };
    fs::remove_dir(&web).expect("removed");
    fs::create_dir(&web).expect("made anew");
    let Event::Gone(gone) = next(&mut watch).await else {
        panic!("the first is gone")
    };
    let Event::Appeared(second) = next(&mut watch).await else {
        panic!("the second is there")
    };
    assert_eq!(gone.id(), first.id());
    assert_ne!(second.id(), first.id());
}

#[tokio::test]
async fn waiting_can_be_given_up_without_losing_a_pod() {
    let tree = Subtree::new();
    let mut watch = Watch::new(&tree.roots()).expect("watched");
    for n in 0..50 {
        let give_up = async { tree.make(&format!("pods/{n}")) };
        let pod = tokio::select! {
            biased;
            event = watch.next() => panic!("{event:?}: nothing was made"),
            pod = give_up => pod,
        };
        expect(&mut watch, "appeared", &pod).await;
    }
}
