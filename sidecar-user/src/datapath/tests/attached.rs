//! What is attached, as the kernel says: while all is well, and after each way in which an attachment ends by itself.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::mount::umount;
use nix::sched::{CloneFlags, unshare};
use sidecar_ebpf::abi::{ABI_VERSION, program};

use super::super::install::attached::{Attached, Place, attached, cgroup_id, cgroup_of};
use super::super::install::pins;
use super::super::{Datapath, Error, Lease, PodTarget, sys};
use super::pod::{Elsewhere, Pod, eventually, in_pod};

fn of_pod(pod: &Pod) -> Attached {
    attached(&pod.config.pins).expect("pins on a bpffs")
}

fn place(found: &Attached, program: &str) -> Place {
    let mut hooks = found.hooks.iter();
    hooks
        .find(|hook| hook.program == program)
        .expect("a hook of ours")
        .place
        .clone()
}

#[test]
fn each_hook_is_told_with_its_target_its_age_and_its_loader() {
    in_pod(|pod| {
        assert!(of_pod(pod).hooks.iter().all(|hook| hook.place == Place::Absent));
        assert_eq!(of_pod(pod).abi, None);
        pod.attach(None);
        let found = of_pod(pod);
        let id = cgroup_id(&pod.config.cgroup).expect("the pod's cgroup");
        let recent = SystemTime::now() - Duration::from_secs(600);
        for hook in &found.hooks {
            let is_there = match hook.place {
                Place::Cgroup(found) => found == id,
                Place::Netns(_) => hook.is_of_netns(),
                _ => false,
            };
            assert!(is_there, "{hook:?}");
            let loaded = hook.loaded.as_ref().expect("a program");
            assert!(hook.since > Some(recent) && loaded.at > Some(recent), "{hook:?}");
            assert_eq!(loaded.by_uid, Some(0));
        }
        assert_eq!(found.abi, Some(ABI_VERSION));
        assert_eq!(cgroup_of(id).as_ref(), Some(&pod.config.cgroup));
    });
}

#[test]
fn a_hook_that_somebody_has_detached_is_gone_and_the_others_are_not() {
    in_pod(|pod| {
        pod.attach(None);
        let link = sys::open_pin(&pins::link(&pod.config.pins, program::CONNECT4)).expect("pinned");
        sys::link_detach(link.as_fd()).expect("detach");
        let found = of_pod(pod);
        assert_eq!(place(&found, program::CONNECT4), Place::Gone);
        assert!(matches!(place(&found, program::CONNECT6), Place::Cgroup(_)));
    });
}

#[test]
fn a_hook_whose_network_namespace_is_gone_is_gone() {
    in_pod(|pod| {
        // No process of the pod is in that cgroup, so that nobody says that the namespace is another pod's.
        let elsewhere = Elsewhere::new(pod);
        let config = elsewhere.0.clone();
        // The namespace ends with the thread, as nothing else is in it.
        let attach = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
            let lease = Lease::take(&config.pins).expect("nobody else");
            Datapath::attach(&config, PodTarget::of(&config)?, lease).map(drop)
        };
        thread::spawn(attach).join().expect("no panic").expect("attach");
        // The kernel takes namespaces down in its own time.
        eventually("the hook of the namespace is gone", || {
            place(&of_pod(pod), program::SK_LOOKUP) == Place::Gone
        });
        assert!(matches!(place(&of_pod(pod), program::CONNECT4), Place::Cgroup(_)));
    });
}

#[test]
fn pins_whose_file_system_is_unmounted_are_an_error_with_the_remedy() {
    in_pod(|pod| {
        drop(pod.attach(None));
        pod.give_up();
        let bpffs = pod.config.pins.ancestors().nth(2).expect("the mount point");
        umount(bpffs).expect("unmount");
        let error = attached(&pod.config.pins).unwrap_err();
        assert!(matches!(error, Error::NotBpffs { .. }), "{error}");
        assert!(error.to_string().contains("mount -t bpf"), "{error}");
    });
}
