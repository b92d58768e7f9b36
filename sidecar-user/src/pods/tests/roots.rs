//! Directories of the kubelet, and pods by their UIDs, on real cgroups.

use super::super::{Driver, Error, PodUid, Qos, Roots};
use super::subtree::{CID, OTHER, Process, Subtree, UID};

fn uid(text: &str) -> PodUid {
    text.parse().expect("a UID")
}

#[test]
fn every_topmost_directory_of_a_kubelet_is_found_with_its_driver() {
    let tree = Subtree::new();
    tree.make("kubepods.slice/kubepods-burstable.slice");
    tree.make("n2/kubepods/burstable");
    tree.make("system.slice/docker-x.scope/kubelet.slice/kubelet-kubepods.slice");
    tree.make("a/b/c/d/kubepods");
    tree.make(&format!(
        "system.slice/kubepods-pod{UID}.slice:cri-containerd:{CID}"
    ));
    // Twice the same directories: seen through two mounts.
    let bases = vec![tree.path.clone(), tree.path.clone()];
    let roots = Roots::below(bases, &[]).expect("roots");
    let mut found: Vec<_> = roots
        .kubepods()
        .into_iter()
        .map(|root| {
            let below = root.path.strip_prefix(&tree.path).expect("below").to_owned();
            (below.to_string_lossy().into_owned(), root.driver)
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("kubepods.slice", Driver::Systemd),
        ("n2/kubepods", Driver::Cgroupfs),
        (
            "system.slice/docker-x.scope/kubelet.slice/kubelet-kubepods.slice",
            Driver::Systemd,
        ),
    ];
    assert_eq!(found, expected.map(|(path, driver)| (path.to_owned(), driver)));
}

#[test]
fn a_pod_is_found_at_its_exact_path_and_otherwise_by_its_name() {
    let tree = Subtree::new();
    let roots = tree.roots();
    let expected = tree.make(&format!("n2/kubepods/burstable/pod{UID}"));
    let pod = |qos| roots.pod(&uid(UID), qos).map(|pod| pod.path().to_owned());
    assert_eq!(pod(Some(Qos::Burstable)).expect("exact"), expected);
    assert_eq!(
        pod(Some(Qos::Guaranteed)).expect("its class was changed"),
        expected
    );
    assert_eq!(pod(None).expect("its class is not known"), expected);
    let slice = format!("kubepods-pod{}.slice", OTHER.replace('-', "_"));
    let expected = tree.make(&format!("kubepods.slice/{slice}"));
    let found = roots.pod(&uid(OTHER), None).expect("underscores");
    assert_eq!(
        (found.path(), found.uid(), found.qos()),
        (&*expected, Some(&uid(OTHER)), Some(Qos::Guaranteed))
    );
    assert_eq!(
        found.id(),
        std::os::unix::fs::MetadataExt::ino(&expected.metadata().expect("a cgroup"))
    );
}

#[test]
fn a_pod_with_no_cgroup_or_with_two_is_refused_with_what_was_found() {
    let tree = Subtree::new();
    let roots = tree.roots();
    let error = roots.pod(&uid(UID), None).unwrap_err();
    assert!(error.to_string().contains("none was found"), "{error}");
    let kubepods = tree.make("kubepods");
    let error = roots.pod(&uid(UID), Some(Qos::Burstable)).unwrap_err();
    assert!(matches!(error, Error::NoPod { .. }), "{error}");
    for named in [UID, &kubepods.display().to_string()] {
        assert!(error.to_string().contains(named), "{error}");
    }
    // A container of the pod is not another candidate.
    let one = tree.make(&format!("kubepods/pod{UID}"));
    tree.make(&format!("kubepods/pod{UID}/x-pod{UID}"));
    assert_eq!(roots.pod(&uid(UID), None).expect("one").path(), one);
    let two = tree.make(&format!("n2/kubepods/pod{UID}"));
    for qos in [None, Some(Qos::Guaranteed)] {
        let error = roots.pod(&uid(UID), qos).unwrap_err();
        assert!(matches!(error, Error::ManyCgroups { .. }), "{error}");
        for named in [UID, &one.display().to_string(), &two.display().to_string()] {
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}

#[test]
fn a_directory_of_pods_outside_of_the_hierarchy_is_refused() {
    let tree = Subtree::new();
    let error = Roots::below(vec![tree.path.clone()], &["/tmp".into()]).unwrap_err();
    assert!(matches!(error, Error::NotCgroup2 { .. }), "{error}");
    assert!(error.to_string().contains("/tmp"), "{error}");
    Roots::of_host(&[tree.path.join("not/made/yet")]).expect("below a mount");
}

#[test]
fn containers_of_a_pod_are_counted_while_they_have_processes() {
    let tree = Subtree::new();
    let path = tree.make(&format!("kubepods/pod{UID}"));
    let pod = tree.roots().pod(&uid(UID), None).expect("a pod");
    assert_eq!(pod.populated().expect("read"), 0);
    tree.make(&format!("kubepods/pod{UID}/{CID}"));
    let below = tree.make(&format!("kubepods/pod{UID}/{}/init", "ab".repeat(32)));
    assert_eq!(pod.populated().expect("read"), 0, "nobody is there");
    let process = Process::of_host().enter(&below);
    assert_eq!(
        pod.populated().expect("read"),
        1,
        "also where it is further below"
    );
    process.end();
    assert!(path.is_dir());
}
