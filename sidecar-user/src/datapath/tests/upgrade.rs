//! Facts about what another version left behind: its hooks go, and the maps that both know stay.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use sidecar_ebpf::abi::schema::TOGETHER;
use sidecar_ebpf::abi::{map, program};
use socket2::{Domain, Socket, Type};

use super::super::install::pins;
use super::super::map::ring;
use super::super::{Config, Error, detach, sys};
use super::app_ports::{self, found, is_open, set};
use super::pod::{POD4, Pod, in_pod};
use super::probe::{FAR4, counter, listener, original_dst};

/// The kernel's number of BPF_CGROUP_INET4_GETSOCKNAME.
const GETSOCKNAME4: u32 = 31;
/// A hook that this version does not have.
const OLD_HOOK: &str = "or_oldhook4";

/// The kernel's numbers of the pinned maps, by name.
pub(super) fn map_ids(pod: &Pod) -> BTreeMap<&'static str, u32> {
    let id = |name| {
        let map = sys::open_pin(&pins::map(&pod.config.pins, name)).expect("pinned");
        sys::map_info(map.as_fd()).expect("a map").id
    };
    map::ALL.into_iter().map(|name| (name, id(name))).collect()
}

/// The kernel's numbers of the programs behind the pinned links, by path.
pub(super) fn program_ids(pod: &Pod) -> BTreeMap<PathBuf, u32> {
    let links = pins::links(&pod.config.pins).expect("links").into_iter();
    let ids = links.map(|pin| {
        let link = sys::open_pin(&pin).expect("pinned");
        let id = sys::link_info(link.as_fd()).expect("a link").program;
        (pin, id)
    });
    ids.collect()
}

/// Leaves a hook behind as a version does that calls it otherwise: attached, and pinned under its own name.
fn rename_a_hook(pins: &Path) {
    let (now, then) = (
        pins::link(pins, program::GETSOCKNAME4),
        pins::link(pins, OLD_HOOK),
    );
    fs::rename(now, then).expect("a bpffs renames");
}

fn attached(pod: &Pod) -> usize {
    let cgroup = File::open(&pod.config.cgroup).expect("a cgroup");
    let attached = sys::attached(cgroup.as_fd(), GETSOCKNAME4, sys::Scope::Target).expect("query");
    attached.programs.len()
}

#[test]
fn whoever_attaches_removes_the_hooks_of_another_version() {
    in_pod(|pod| {
        drop(pod.attach(None));
        rename_a_hook(&pod.config.pins);
        assert_eq!(attached(pod), 1, "the old one");
        let _datapath = pod.attach(None);
        assert_eq!(attached(pod), 1, "one program, not two");
        assert!(!pins::link(&pod.config.pins, OLD_HOOK).exists());
        assert!(pins::link(&pod.config.pins, program::GETSOCKNAME4).exists());
    });
}

#[test]
fn detaching_leaves_nothing_of_another_version() {
    in_pod(|pod| {
        drop(pod.attach(None));
        pod.give_up();
        rename_a_hook(&pod.config.pins);
        let old_map = pins::maps(&pod.config.pins).join("or_oldmap_v7");
        fs::rename(pins::map(&pod.config.pins, map::PENDING), &old_map).expect("a bpffs renames");
        let removed = detach(&pod.config.pins, false).expect("detach");
        for path in [pins::link(&pod.config.pins, OLD_HOOK), old_map] {
            assert!(removed.contains(&path), "{} in {removed:?}", path.display());
        }
        assert!(!pod.config.pins.exists());
        assert_eq!(attached(pod), 0);
    });
}

#[test]
fn a_hook_of_another_version_that_holds_another_pod_is_not_removed() {
    in_pod(|pod| {
        let other = Config {
            cgroup: pod.config.cgroup.join("other"),
            ..pod.config.clone()
        };
        fs::create_dir(&other.cgroup).expect("a cgroup");
        drop(pod.attach_as(&other, None).expect("attach"));
        rename_a_hook(&pod.config.pins);
        let ours = pins::links(&pod.config.pins).expect("links");
        for pin in ours.iter().filter(|pin| !pin.ends_with(OLD_HOOK)) {
            fs::remove_file(pin).expect("a pin");
        }
        let error = pod.attach_as(&pod.config, None).map(drop).unwrap_err();
        assert!(
            matches!(&error, Error::OtherTarget { pin, .. } if pin.ends_with(OLD_HOOK)),
            "{error}"
        );
        pod.give_up();
        detach(&pod.config.pins, false).expect("detach");
        fs::remove_dir(&other.cgroup).expect("clean up");
    });
}

#[test]
fn other_ports_renew_the_settings_and_nothing_that_connections_need() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let first = pod.attach(None);
        let _app = TcpStream::connect(FAR4).expect("redirected");
        let (accepted, _) = outbound.accept().expect("accept");
        let own = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        first.session().bypass().mark(own.as_fd()).expect("mark");
        let before = map_ids(pod);
        drop(first);

        let other = Config {
            open_ports: vec![15008, 16000],
            ..pod.config.clone()
        };
        let second = pod.attach_as(&other, None).expect("attach");
        let after = map_ids(pod);
        let renewed: Vec<&str> = map::ALL
            .into_iter()
            .filter(|name| before[name] != after[name])
            .collect();
        assert_eq!(renewed, [map::POLICY, map::SETTINGS]);
        let far: SocketAddr = FAR4.parse().expect("an address");
        assert_eq!(original_dst(&accepted), Some(far));
        assert_eq!(counter(&second, "redirected"), 1);
        let to = pod.neighbour4.local_addr().unwrap();
        own.connect(&to.into()).expect("past the proxy");
        pod.neighbour4.accept().expect("the mark still counts");
    });
}

/// Its listener is older than the maps: nothing of them says that anybody listens.
#[test]
fn where_the_map_of_ports_begins_anew_a_served_port_stays_open_until_the_first_look() {
    in_pod(|pod| {
        let inbound = pod.inbound();
        let app = listener(Domain::IPV6);
        let port = app.local_addr().unwrap().port();
        drop(app_ports::attached(pod, &inbound, &[found(&app)]));
        assert!(is_open(pod, POD4, port));
        fs::remove_file(pins::map(&pod.config.pins, map::INHERITED)).expect("a pin");

        let datapath = pod.attach(Some(&inbound));
        assert!(is_open(pod, POD4, port));
        let mut ports = datapath.session().app_ports().expect("ports");
        set(&mut ports, &[found(&app)]);
        assert!(is_open(pod, POD4, port));
        assert!(!is_open(pod, POD4, 9));
    });
}

#[test]
fn a_map_of_another_layout_begins_anew_and_takes_along_only_what_belongs_to_it() {
    in_pod(|pod| {
        for spoilt in [map::PENDING, map::APP_PORTS] {
            drop(pod.attach(None));
            let before = map_ids(pod);
            let pin = pins::map(&pod.config.pins, spoilt);
            fs::remove_file(&pin).expect("a pin");
            let ring = ring(4096).expect("a map of another kind");
            sys::pin(ring.as_fd(), &pin).expect("pin");
            let older = pins::maps(&pod.config.pins).join(format!("{spoilt}_v0"));
            sys::pin(ring.as_fd(), &older).expect("pin");

            let _datapath = pod.attach(None);
            let after = map_ids(pod);
            let together = TOGETHER.into_iter().find(|group| group.contains(&spoilt));
            let alone = [spoilt];
            let expected = together.unwrap_or(&alone);
            for name in map::ALL {
                let is_renewed = before[name] != after[name];
                assert_eq!(is_renewed, expected.contains(&name), "{name} beside {spoilt}");
            }
            assert!(!older.exists(), "no program works with it any more");
        }
    });
}
