//! Facts about who owns a pod: one proxy at a time, for as long as it lives.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use super::super::error::Owner;
use super::super::{Config, Error, Lease, detach};
use super::pod::{Pod, in_pod};
use super::probe::FAR4;
use super::upgrade::{map_ids, program_ids};

/// What a proxy with other ports would attach.
fn with_other_ports(pod: &Pod) -> Config {
    Config {
        open_ports: vec![25008],
        ..pod.config.clone()
    }
}

#[test]
fn a_second_proxy_is_refused_with_the_owner_named_and_changes_nothing() {
    in_pod(|pod| {
        let proxy = pod.spawn_proxy();
        let before = (map_ids(pod), program_ids(pod));
        let error = pod.attach_as(&with_other_ports(pod), None).map(drop).unwrap_err();
        let message = error.to_string();
        assert!(
            matches!(&error, Error::Owned { owner: Owner::Process(pid), .. } if *pid == proxy.pid()),
            "{message}"
        );
        for part in [
            pod.config.pins.to_str().unwrap(),
            &format!("process {}", proxy.pid()),
            "Stop",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!((map_ids(pod), program_ids(pod)), before);
        TcpStream::connect(FAR4).expect("the first one accepts");
    });
}

#[test]
fn the_lease_ends_with_the_process() {
    in_pod(|pod| {
        pod.spawn_proxy().kill();
        let _outbound = pod.outbound();
        let _datapath = pod
            .attach_as(&pod.config, None)
            .expect("at once: the kernel has ended the lease");
        TcpStream::connect(FAR4).expect("redirected");
    });
}

/// As an agent that leaves removes what the next one is about to make.
#[test]
fn a_lease_is_to_be_had_while_the_directory_above_is_removed_again_and_again() {
    in_pod(|pod| {
        let above = pod.config.pins.with_file_name("above");
        let (done, removed, leases) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let taken = thread::scope(|scope| {
            scope.spawn(|| {
                // Once for each lease: one who never rests waits for each new directory in step with whoever makes it, and takes every one.
                let mut last = usize::MAX;
                while !done.load(Relaxed) {
                    let now = leases.load(Relaxed);
                    if now != last && fs::remove_dir(&above).is_ok() {
                        removed.fetch_add(1, Relaxed);
                        last = now;
                    }
                }
            });
            let node = above.join("node");
            let taken = (0..2000).try_for_each(|_| {
                leases.fetch_add(1, Relaxed);
                Lease::take(&node).map(drop)
            });
            done.store(true, Relaxed);
            taken
        });
        let _ = fs::remove_dir(&above);
        taken.expect("nobody else takes it");
        assert!(removed.load(Relaxed) > 0);
    });
}

#[test]
fn detaching_is_refused_while_a_proxy_runs_unless_it_is_forced() {
    in_pod(|pod| {
        let proxy = pod.spawn_proxy();
        let before = program_ids(pod);
        let error = detach(&pod.config.pins, false).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::InUse { .. }), "{message}");
        for part in [&format!("process {}", proxy.pid()), "--force"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(program_ids(pod), before);
        TcpStream::connect(FAR4).expect("the proxy accepts");

        detach(&pod.config.pins, true).expect("forced");
        assert!(!pod.config.pins.exists());
        let to = pod.neighbour4.local_addr().unwrap();
        TcpStream::connect(to).expect("directly");
        pod.neighbour4.accept().expect("accept");
    });
}

#[test]
fn a_lease_is_of_the_directory_that_is_there_now() {
    in_pod(|pod| {
        let pins = &pod.config.pins;
        let first = Lease::take(pins).expect("nobody has it");
        Lease::take(pins).expect_err("one at a time");
        assert!(detach(pins, true).expect("forced").contains(&pod.config.pins));
        let second = Lease::take(pins).expect("a new directory, which nobody has");
        drop(first);
        assert!(pins.exists(), "it was not the first one's any more");
        Lease::take(pins).expect_err("the second one has it");
        drop(second);
    });
}

#[test]
fn a_lease_under_which_nothing_was_pinned_leaves_nothing() {
    in_pod(|pod| {
        let lease = Lease::take(&pod.config.pins).expect("nobody has it");
        let mode = fs::metadata(&pod.config.pins).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "whoever may open the directory may lock it");
        drop(lease);
        assert!(!pod.config.pins.exists());
        assert!(detach(&pod.config.pins, false).expect("nothing there").is_empty());
    });
}

#[test]
fn a_directory_of_ordinary_files_is_nobodys_pins() {
    in_pod(|_| {
        let directory = std::env::temp_dir().join(format!("outrigger-no-pins-{}", std::process::id()));
        let file = directory.join("links/or_connect4");
        fs::create_dir_all(directory.join("links")).unwrap();
        fs::write(&file, "somebody's").unwrap();
        let results = [
            Lease::take(&directory).map(drop),
            detach(&directory, false).map(drop),
            detach(&directory, true).map(drop),
        ];
        let is_kept = file.exists();
        fs::remove_dir_all(&directory).unwrap();
        for result in results {
            assert!(matches!(result, Err(Error::NotBpffs { .. })), "{result:?}");
        }
        assert!(is_kept);
    });
}
