//! Keeps the kernel side informed of the pod's own network: which ports listen, which destinations have a route. Decides
//! what is no fact of the host: that the mesh's virtual addresses are reached without a route.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::datapath::{AppPorts, Datapath, RouteMap};
use crate::host::{self, Changes, Routes};
use crate::model::Snapshot;
use crate::model::network::Path;

/// Listeners of the pod's cgroup are known at once, this only after a while: the end of those that are older than the
/// programs.
const LISTENERS: Duration = Duration::from_secs(2);
/// Between two looks at routes that change all the time.
const REST: Duration = Duration::from_millis(100);

/// Tells the kernel side what is there now, and starts to follow it. What cannot be asked is a warning, and leaves the
/// kernel side as it is without the knowledge: connect() says EINPROGRESS first, a closed port is accepted and reset.
///
/// Follows until the answer is dropped. A proxy that drains has to: the next one may be writing the same maps.
#[must_use]
pub(super) fn follow(
    kernel: &Datapath,
    addresses: Vec<IpAddr>,
    world: watch::Receiver<Arc<Snapshot>>,
) -> JoinSet<()> {
    let mut following = JoinSet::new();
    match kernel.app_ports() {
        Ok(ports) => {
            let mut listeners = Listeners { ports, failed: false };
            listeners.look();
            following.spawn(listeners.follow());
        }
        Err(error) => tracing::warn!(%error, "closed ports look open to outsiders"),
    }
    let watched = kernel.routes().map_err(anyhow::Error::from).and_then(|map| {
        // Before the first look, so that no change falls between.
        Ok((map, Changes::watch()?))
    });
    match watched {
        Ok((map, changes)) => {
            let mut paths = Paths {
                map,
                addresses,
                routes: None,
                warned: None,
            };
            paths.look(&world.borrow().clone());
            following.spawn(paths.follow(changes, world));
        }
        Err(error) => tracing::warn!(%error, "connections without a route do not fail at once"),
    }
    following
}

struct Listeners {
    ports: AppPorts,
    failed: bool,
}

impl Listeners {
    fn look(&mut self) {
        let looked: anyhow::Result<()> = self.ports.set(|| Ok(host::listening()?));
        if let Err(error) = &looked
            && !self.failed
        {
            tracing::warn!(%error, "the listening ports of this pod are not known");
        }
        self.failed = looked.is_err();
    }

    async fn follow(mut self) {
        loop {
            sleep(LISTENERS).await;
            self.look();
        }
    }
}

struct Paths {
    map: RouteMap,
    addresses: Vec<IpAddr>,
    routes: Option<Routes>,
    /// What was warned of last, so that it is said once.
    warned: Option<String>,
}

impl Paths {
    async fn follow(mut self, mut changes: Changes, mut world: watch::Receiver<Arc<Snapshot>>) {
        loop {
            tokio::select! {
                heard = changes.next() => {
                    if let Err(error) = heard {
                        self.give_up(&error.to_string());
                        return;
                    }
                    sleep(REST).await;
                    let world = world.borrow().clone();
                    self.look(&world);
                }
                changed = world.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let world = world.borrow_and_update().clone();
                    self.write(&world);
                }
            }
        }
    }

    fn look(&mut self, world: &Snapshot) {
        match host::routes() {
            Ok(routes) => {
                self.routes = Some(routes);
                self.write(world);
            }
            Err(error) => self.give_up(&error.to_string()),
        }
    }

    fn write(&mut self, world: &Snapshot) {
        let Some(routes) = &self.routes else {
            return;
        };
        let vips = world
            .services()
            .flat_map(|(service, _)| service.vips.iter().copied());
        let paths = with_vips(&routes.paths, vips, &self.addresses);
        let complete = !routes.policy;
        let written = self.map.set(&paths).and_then(|()| self.map.complete(complete));
        match written {
            Err(error) => self.give_up(&error.to_string()),
            Ok(()) if !complete => {
                self.warn("policy routing (ip rule) is in force, which prefixes cannot tell")
            }
            Ok(()) => self.warned = None,
        }
    }

    /// Half the truth is worse than none: a destination that has a route after all could not be reached.
    fn give_up(&mut self, why: &str) {
        if let Err(error) = self.map.complete(false) {
            tracing::error!(%error, "stale routes stay in force");
        }
        self.warn(why);
    }

    fn warn(&mut self, why: &str) {
        if self.warned.as_deref() != Some(why) {
            tracing::warn!(%why, "connections without a route do not fail at once");
            self.warned = Some(why.to_owned());
        }
    }
}

/// The host's paths, and one to each virtual address that it has none to: nobody but the proxy needs it. A pod without an
/// address of the family stays without, as programs that try both families rely on.
fn with_vips(
    paths: &BTreeMap<IpNet, Path>,
    vips: impl Iterator<Item = IpAddr>,
    own: &[IpAddr],
) -> BTreeMap<IpNet, Path> {
    let mut all = paths.clone();
    for vip in vips.map(|vip| vip.to_canonical()) {
        let source = own.iter().find(|own| own.is_ipv4() == vip.is_ipv4());
        if let Some(source) = source
            && !matches!(longest(paths, vip), Some(Path::From(_)))
        {
            all.insert(vip.into(), Path::From(*source));
        }
    }
    all
}

fn longest(paths: &BTreeMap<IpNet, Path>, ip: IpAddr) -> Option<&Path> {
    let whole = IpNet::from(ip);
    (0..=whole.max_prefix_len())
        .rev()
        .filter_map(|len| IpNet::new(ip, len).ok())
        .find_map(|net| paths.get(&net.trunc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN4: &str = "10.0.0.9";

    #[test]
    fn a_virtual_address_is_reached_without_a_route() {
        let paths = paths(&[
            ("10.0.0.0/8", Path::From(ip("10.1.1.1"))),
            ("10.96.0.0/16", Path::Fails(113)),
            ("::/0", Path::Fails(101)),
        ]);
        let vips = ["10.96.0.1", "10.5.0.1", "192.0.2.1", "fd96::1"].map(ip);
        let all = with_vips(&paths, vips.into_iter(), &[ip(OWN4)]);
        let of = |vip: &str| longest(&all, ip(vip)).copied();
        assert_eq!(of("10.96.0.1"), Some(Path::From(ip(OWN4))), "the host refuses it");
        assert_eq!(
            of("192.0.2.1"),
            Some(Path::From(ip(OWN4))),
            "the host has no route"
        );
        assert_eq!(
            of("10.5.0.1"),
            Some(Path::From(ip("10.1.1.1"))),
            "the host's own way"
        );
        assert_eq!(of("fd96::1"), Some(Path::Fails(101)), "the pod has no IPv6");
        assert_eq!(of("10.96.0.2"), Some(Path::Fails(113)), "no virtual address");
    }

    fn paths(of: &[(&str, Path)]) -> BTreeMap<IpNet, Path> {
        of.iter()
            .map(|(net, path)| (net.parse().expect("a prefix"), *path))
            .collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }
}
