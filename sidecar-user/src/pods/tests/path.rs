//! Every form of a path, and every refusal.

use std::path::{Path, PathBuf};

use super::super::mounts::Mount;
use super::super::role::Role;
use super::super::{Driver, Error, PodPath, PodUid, Qos};
use super::subtree::{CID, OTHER, UID};
use Qos::{BestEffort, Burstable, Guaranteed};

const UID_: &str = "2c48913c_b29f_11e7_9350_020968147796";
const CID2: &str = "b2a102854b4969b2ce98dc329c86b4fb2b06e4ad2cc8da9d8a7578c9cd2004a2";
const STATIC: &str = "2732ca68f6358eba7703fb6f82a25c94";

fn uid(text: &str) -> PodUid {
    text.parse().expect("a UID")
}

/// A path with its pod's directory before `//`, which stands for one slash.
fn said(path: &str) -> PodPath {
    PodPath::parse(&path.replace("//", "/")).expect("one pod")
}

#[test]
fn a_path_of_either_driver_says_pod_class_and_container() {
    let scope = format!("cri-containerd-{CID}.scope");
    let crio = format!("crio-{CID}.scope");
    let table = [
        (
            format!("/kubepods.slice/kubepods-pod{UID_}.slice//{scope}"),
            Some(Guaranteed),
        ),
        (
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice//{scope}"),
            Some(Burstable),
        ),
        (
            format!("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice//{crio}"),
            Some(BestEffort),
        ),
        // Either separator.
        (
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID}.slice//docker-{CID}.scope"
            ),
            Some(BestEffort),
        ),
        (format!("/kubepods/pod{UID}//{CID}"), Some(Guaranteed)),
        (format!("/kubepods/burstable/pod{UID}//{CID}"), Some(Burstable)),
        (format!("/kubepods/besteffort/pod{UID}//{CID}"), Some(BestEffort)),
        (format!("/kubepods/besteffort/pod{UID_}//{CID}"), Some(BestEffort)),
        // `--cgroup-root` with either driver.
        (
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UID_}.slice//{scope}"
            ),
            Some(Burstable),
        ),
        (
            format!("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice//{scope}"),
            Some(Guaranteed),
        ),
        (format!("/n2/kubepods/burstable/pod{UID}//{CID}"), Some(Burstable)),
        // The node is a container.
        (
            format!(
                "/system.slice/docker-{CID2}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice//{scope}"
            ),
            Some(Guaranteed),
        ),
        (
            format!("/docker/{CID2}/kubepods/besteffort/pod{UID}//{CID}"),
            Some(BestEffort),
        ),
        // From inside of a cgroup namespace: what is above may not be seen.
        (
            format!("/../../kubepods-besteffort-pod{UID_}.slice//{scope}"),
            Some(BestEffort),
        ),
        (format!("/../../../burstable/pod{UID}//{CID}"), Some(Burstable)),
        (format!("/../../pod{UID}//{CID}"), None),
        // What a container makes in its own cgroup is its own affair.
        (
            format!("/kubepods/pod{UID}//{CID}/docker/{CID2}"),
            Some(Guaranteed),
        ),
        (format!("/kubepods/pod{UID}//{CID}/init.scope"), Some(Guaranteed)),
    ];
    for (path, qos) in table {
        let found = PodPath {
            uid: Some(uid(UID)),
            qos,
            container: Some(CID.into()),
            directory: path.split_once("//").map(|(pod, _)| pod.into()),
        };
        assert_eq!(said(&path), found, "{path}");
    }
}

#[test]
fn a_pod_without_a_container_and_a_static_pod_are_known_too() {
    let found = said(&format!("/kubepods/burstable/pod{UID}"));
    assert_eq!((found.uid, found.container), (Some(uid(UID)), None));
    for path in [
        format!("/kubepods/pod{STATIC}//{CID}"),
        format!("/kubepods.slice/kubepods-pod{STATIC}.slice//{CID}"),
    ] {
        assert_eq!(said(&path).uid, Some(uid(STATIC)), "{path}");
    }
}

#[test]
fn the_leaf_of_disagreeing_drivers_names_a_pod_but_is_not_its_directory() {
    for (class, qos) in [
        ("", Guaranteed),
        ("-burstable", Burstable),
        ("-besteffort", BestEffort),
    ] {
        for uid_ in [UID, UID_] {
            let path = format!(
                "/system.slice/containerd.service/kubepods{class}-pod{uid_}.slice:cri-containerd:{CID}"
            );
            let found = PodPath {
                uid: Some(uid(UID)),
                qos: Some(qos),
                container: Some(CID.into()),
                directory: None,
            };
            assert_eq!(said(&path), found, "{path}");
        }
    }
}

#[test]
fn a_path_without_a_uid_names_no_pod() {
    let crio = said(&format!("/../crio-{CID}.scope"));
    assert_eq!((crio.uid, crio.container.as_deref()), (None, Some(CID)));
    for path in [
        "/".to_owned(),
        "/init.scope".to_owned(),
        "/kubepods.slice/kubepods-burstable.slice".to_owned(),
        "/kubepods/burstable/podnotauid".to_owned(),
        "/user.slice/user-1000.slice/tripod-a.slice".to_owned(),
        // Too short, not hexadecimal, and not of the kubelet.
        format!("/kubepods/pod{}", &UID[1..]),
        format!("/kubepods/pod{}", UID.replace('c', "x")),
        format!("/kubepods/pod{}", UID.replace("-b29f", "b29f")),
        format!("/machine.slice/libpod-pod{UID_}.slice"),
        format!("/system.slice/x.slice:cri-containerd:{CID}"),
        format!("/kubepods-pod{UID_}.slice:cri-containerd:short"),
    ] {
        let found = said(&path);
        assert_eq!((found.uid, found.directory), (None, None), "{path}");
    }
}

#[test]
fn one_path_of_two_pods_is_refused_with_both() {
    let path = format!("/kubepods/pod{UID}/{CID}/kubelet/kubepods/burstable/pod{OTHER}/{CID2}");
    let error = PodPath::parse(&path).unwrap_err();
    assert!(matches!(error, Error::TwoPods { .. }), "{error}");
    for named in [UID, OTHER, &path] {
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn a_process_of_two_pods_or_two_containers_is_refused_with_both() {
    let of = |v1: &str, v2: &str| {
        PodPath::of_process(
            "process 7",
            &format!("4:memory:{v1}\n1:name=systemd:/\n0::{v2}\n"),
        )
    };
    let error = of(
        &format!("/kubepods/pod{UID}/{CID}"),
        &format!("/kubepods/pod{OTHER}/{CID}"),
    )
    .unwrap_err();
    assert!(matches!(error, Error::TwoPods { .. }), "{error}");
    for named in ["process 7", UID, OTHER] {
        assert!(error.to_string().contains(named), "{error}");
    }
    let error = of(
        &format!("/kubepods/pod{UID}/{CID}"),
        &format!("/kubepods/pod{UID}/{CID2}"),
    )
    .unwrap_err();
    assert!(matches!(error, Error::TwoContainers { .. }), "{error}");
    for named in ["process 7", CID, CID2] {
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn all_hierarchies_of_a_process_count_and_cgroup2_has_the_directory() {
    let of = |lines: String| PodPath::of_process("process 7", &lines).expect("one pod");
    let both = of(format!(
        "4:memory:/kubepods/burstable/pod{UID}/{CID}\n0::/kubepods/pod{UID}/{CID}\n"
    ));
    assert_eq!(both.directory, Some(format!("/kubepods/pod{UID}")));
    // The container that is the node says nothing beside the pod in it.
    let nested = of(format!(
        "4:memory:/docker/{CID2}\n0::/docker/{CID2}/kubepods/pod{UID}/{CID}\n"
    ));
    assert_eq!(
        (nested.uid, nested.container.as_deref()),
        (Some(uid(UID)), Some(CID))
    );
    let v1_only = of(format!(
        "4:cpu,cpuacct:/kubepods/burstable/pod{UID}/{CID}\n0::/\n"
    ));
    assert_eq!(
        (v1_only.uid, v1_only.qos, v1_only.directory),
        (Some(uid(UID)), Some(Burstable), None)
    );
    assert_eq!(of("nonsense\n0::/\n".into()), PodPath::default());
}

#[test]
fn what_is_expected_for_a_pod_is_what_its_path_says() {
    let systemd = "kubepods.slice";
    let table = [
        (
            Driver::Systemd,
            systemd,
            Guaranteed,
            format!("kubepods-pod{UID_}.slice"),
        ),
        (
            Driver::Systemd,
            systemd,
            Burstable,
            format!("kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice"),
        ),
        (
            Driver::Systemd,
            systemd,
            BestEffort,
            format!("kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice"),
        ),
        (
            Driver::Systemd,
            "kubelet.slice/kubelet-kubepods.slice",
            Burstable,
            format!("kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UID_}.slice"),
        ),
        (Driver::Cgroupfs, "kubepods", Guaranteed, format!("pod{UID}")),
        (
            Driver::Cgroupfs,
            "kubepods",
            Burstable,
            format!("burstable/pod{UID}"),
        ),
        (
            Driver::Cgroupfs,
            "n2/kubepods",
            BestEffort,
            format!("besteffort/pod{UID}"),
        ),
    ];
    for (driver, root, qos, below) in table {
        let root = Path::new("/sys/fs/cgroup").join(root);
        let path = driver.directory(&root, &uid(UID), qos);
        assert_eq!(path, root.join(below));
        let found = said(&path.to_string_lossy());
        assert_eq!((found.uid, found.qos), (Some(uid(UID)), Some(qos)), "{path:?}");
        let name = root.file_name().expect("a name").to_string_lossy();
        assert_eq!(Driver::of_root(&name), driver);
    }
}

#[test]
fn what_is_no_uid_is_refused_with_what_was_given() {
    assert_eq!(uid(UID_).as_str(), UID);
    for text in [
        "",
        "web-0",
        &UID[1..],
        "../../etc",
        &format!("{UID}-"),
        &format!("{STATIC}00"),
    ] {
        let error = text.parse::<PodUid>().unwrap_err();
        assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
    }
}

#[test]
fn directories_are_followed_to_pods_and_no_further() {
    let walk = |start: Role, path: &str| path.split('/').try_fold(start, |role, name| role.below(name));
    let search = |path: &str| walk(Role::Search(0), path);
    assert_eq!(search("a/b/c"), Some(Role::Search(3)));
    assert_eq!(search("a/b/c/d"), None, "too deep");
    assert_eq!(search("a/b/c/kubepods"), Some(Role::Kubepods));
    assert_eq!(
        search("kubepods/kubepods-x"),
        Some(Role::Class),
        "only the topmost"
    );
    assert_eq!(search(&format!("kubepods/pod{UID}")), Some(Role::Pod));
    assert_eq!(search(&format!("kubepods/burstable/pod{UID}")), Some(Role::Pod));
    assert_eq!(search(&format!("kubepods/pod{UID}/{CID}")), None, "a container");
    assert_eq!(search("kubepods/burstable/other"), None);
    assert_eq!(
        search(&format!("a/kubepods-pod{UID_}.slice:cri-containerd:{CID}")),
        None
    );
    let names = |path: &str| path.split('/').map(str::to_owned).collect();
    assert_eq!(walk(Role::toward(names("a/b")), "a/b"), Some(Role::Plain));
    assert_eq!(walk(Role::toward(names("a/b")), "a/b/web"), Some(Role::Pod));
    assert_eq!(walk(Role::toward(names("a/b")), "b"), None);
}

#[test]
fn the_hierarchy_is_found_wherever_it_is_mounted() {
    let line =
        |root: &str, at: &str| format!("36 35 0:30 {root} {at} rw,nosuid shared:9 - cgroup2 cgroup2 rw");
    let mount = |root: &str| Mount::of_line(&line(root, "/sys/fs/cgroup/unified")).expect("cgroup2");
    assert_eq!(
        Mount::of_line("35 34 0:29 / /sys/fs/cgroup rw - tmpfs tmpfs rw"),
        None
    );
    assert_eq!(
        Mount::of_line("37 35 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"),
        None
    );
    assert_eq!(Mount::of_line(""), None);
    let at = |root: &str, cgroup: &str| mount(root).path_of(cgroup);
    assert_eq!(at("/", "/a/b"), Some("/sys/fs/cgroup/unified/a/b".into()));
    assert_eq!(at("/a", "/a/b"), Some("/sys/fs/cgroup/unified/b".into()));
    assert_eq!(
        at("/..", "/../b"),
        Some("/sys/fs/cgroup/unified/b".into()),
        "the host's mount in a container"
    );
    assert_eq!(at("/", "/../b"), None, "outside of the cgroup namespace");
    assert_eq!(at("/a", "/ab"), None);
    let spaced = Mount::of_line(&line("/", "/a\\040b\\134c")).expect("cgroup2");
    assert_eq!(spaced.at, PathBuf::from("/a b\\c"));
    assert!(mount("/kubepods/burstable").is_below_kubepods());
    assert!(!mount("/..").is_below_kubepods());
}
