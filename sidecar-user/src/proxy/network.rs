//! Keeps the kernel side informed of the pod's own network: which ports listen, which destinations have a route. Decides
//! what is no fact of the host: that the mesh's virtual addresses are reached without a route.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::kernel::Kernel;
use crate::datapath::{AppPorts, Netns, RouteMap};
use crate::host::{self, Change, Changes, RouteTable, Routes};
use crate::model::Snapshot;
use crate::model::network::Path;

/// Between two looks at who listens, however many reasons there are.
const LOOKS: Duration = Duration::from_secs(2);
/// Closed ports are asked for all the time, by scanners and impatient clients. Looks that find nothing become rarer, up to this.
const LOOKS_FOR_NOTHING: Duration = Duration::from_secs(16);
/// A look for no reason, in case one has been missed.
const LOOKS_ANYWAY: Duration = Duration::from_secs(300);
/// Between two looks at routes that change all the time.
const REST: Duration = Duration::from_millis(100);

/// Tells the kernel side what is there now, and starts to follow it. What cannot be asked is a warning, and leaves the
/// kernel side as it is without the knowledge: connect() says EINPROGRESS first, a closed port is accepted and reset.
///
/// Follows until the answer is dropped. A proxy that drains has to: the next one may be writing the same maps.
#[must_use]
pub(super) fn follow(
    kernel: &Kernel,
    addresses: Vec<IpAddr>,
    world: watch::Receiver<Arc<Snapshot>>,
) -> JoinSet<()> {
    let mut following = JoinSet::new();
    let netns = kernel.pod().netns();
    match kernel.session().app_ports() {
        Ok(ports) => {
            let mut listeners = Listeners {
                ports,
                host: host::Listeners::default(),
                netns: netns.clone(),
                failed: false,
            };
            listeners.look();
            following.spawn(listeners.follow());
        }
        Err(error) => tracing::warn!(%error, "closed ports look open to outsiders"),
    }
    let watched = kernel
        .session()
        .routes()
        .map_err(anyhow::Error::from)
        .and_then(|map| {
            // Before the first look, so that no change falls between.
            let runtime = Handle::current();
            let watch = || {
                let _of_this_thread = runtime.enter();
                Changes::watch()
            };
            Ok((map, netns.within(watch)??))
        });
    match watched {
        Ok((map, changes)) => {
            let mut paths = Paths {
                map,
                addresses,
                table: RouteTable::default(),
                netns: netns.clone(),
                known: None,
                vips: BTreeSet::new(),
                warned: None,
            };
            paths.look(&world.borrow().clone(), Change::Any);
            following.spawn(paths.follow(changes, world));
        }
        Err(error) => tracing::warn!(%error, "connections without a route do not fail at once"),
    }
    following
}

struct Listeners {
    ports: AppPorts,
    host: host::Listeners,
    netns: Netns,
    failed: bool,
}

impl Listeners {
    /// Says whether anything was found that was not known.
    fn look(&mut self) -> bool {
        let (host, netns) = (&mut self.host, &self.netns);
        let looked: anyhow::Result<bool> = self.ports.set(|| Ok(netns.within(|| host.look())??));
        if let Err(error) = &looked
            && !self.failed
        {
            tracing::warn!(%error, "the listening ports of this pod are not known");
        }
        self.failed = looked.is_err();
        looked.unwrap_or(true)
    }

    /// Listeners that begin after the programs were attached are known at once. A look is for the end of those that are
    /// older, for those that the programs have no room for, and for a warning about those that nobody serves.
    async fn follow(mut self) {
        let mut rest = LOOKS;
        loop {
            sleep(LOOKS).await;
            if !self.failed && !self.ports.is_crowded() {
                self.reason(rest - LOOKS).await;
            }
            rest = match self.look() {
                true => LOOKS,
                false => (rest * 2).min(LOOKS_FOR_NOTHING),
            };
        }
    }

    /// Waits for a reason to look. Refused attempts are one after `rest` only.
    async fn reason(&self, rest: Duration) {
        let refusal = async {
            sleep(rest).await;
            self.ports.closed().await;
        };
        tokio::select! {
            () = self.ports.ended() => {}
            () = refusal => {}
            () = sleep(LOOKS_ANYWAY) => {}
        }
    }
}

struct Paths {
    map: RouteMap,
    addresses: Vec<IpAddr>,
    table: RouteTable,
    netns: Netns,
    /// What was found last.
    known: Option<Routes>,
    /// The mesh's virtual addresses that were written last.
    vips: BTreeSet<IpAddr>,
    /// What was warned of last, so that it is said once.
    warned: Option<String>,
}

impl Paths {
    async fn follow(mut self, mut changes: Changes, mut world: watch::Receiver<Arc<Snapshot>>) {
        loop {
            tokio::select! {
                heard = changes.next() => {
                    let change = match heard {
                        Ok(change) => change,
                        Err(error) => {
                            self.give_up(&error.to_string());
                            return;
                        }
                    };
                    let world = world.borrow().clone();
                    self.look(&world, change);
                    sleep(REST).await;
                }
                changed = world.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let world = world.borrow_and_update().clone();
                    self.follow_world(&world);
                }
            }
        }
    }

    fn look(&mut self, world: &Snapshot, change: Change) {
        // After a failure nothing is known that could be added to.
        let (table, is_known) = (&mut self.table, self.known.is_some());
        let looked = self.netns.within(|| match change {
            Change::Routes(prefixes) if is_known => table.look_at(&prefixes).cloned(),
            _ => table.look().cloned(),
        });
        match looked.map_err(anyhow::Error::from).and_then(|routes| Ok(routes?)) {
            Ok(routes) => {
                self.known = Some(routes);
                self.vips = vips(world);
                self.write();
            }
            Err(error) => {
                self.known = None;
                self.give_up(&error.to_string());
            }
        }
    }

    /// Most changes of the registry leave its virtual addresses as they were.
    fn follow_world(&mut self, world: &Snapshot) {
        let vips = vips(world);
        if vips != self.vips {
            self.vips = vips;
            self.write();
        }
    }

    fn write(&mut self) {
        let Some(routes) = &self.known else {
            return;
        };
        let paths = with_vips(&routes.paths, &self.vips, &self.addresses);
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

fn vips(world: &Snapshot) -> BTreeSet<IpAddr> {
    let services = world.services();
    services
        .flat_map(|(service, _)| service.vips.iter().map(IpAddr::to_canonical))
        .collect()
}

/// The host's paths, and one to each virtual address that it has none to: nobody but the proxy needs it. A pod without an
/// address of the family stays without, as programs that try both families rely on.
fn with_vips(
    paths: &BTreeMap<IpNet, Path>,
    vips: &BTreeSet<IpAddr>,
    own: &[IpAddr],
) -> BTreeMap<IpNet, Path> {
    let mut all = paths.clone();
    let host = Covering::of(paths);
    for vip in vips {
        let source = own.iter().find(|own| own.is_ipv4() == vip.is_ipv4());
        if let Some(source) = source
            && !matches!(host.longest(*vip), Some(Path::From(_)))
        {
            all.insert((*vip).into(), Path::From(*source));
        }
    }
    all
}

/// Finds the longest prefix that holds an address, by one look-up for each length that there is: some five in a usual
/// table, of 129.
struct Covering<'p> {
    paths: &'p BTreeMap<IpNet, Path>,
    /// By family, the longest first.
    lengths: [Vec<u8>; 2],
}

impl<'p> Covering<'p> {
    fn of(paths: &'p BTreeMap<IpNet, Path>) -> Self {
        let lengths = [true, false].map(|v4| {
            let family = paths.keys().filter(|net| net.addr().is_ipv4() == v4);
            let lengths: BTreeSet<u8> = family.map(IpNet::prefix_len).collect();
            lengths.into_iter().rev().collect()
        });
        Self { paths, lengths }
    }

    fn longest(&self, ip: IpAddr) -> Option<&'p Path> {
        let lengths = self.lengths[usize::from(ip.is_ipv6())].iter();
        lengths
            .filter_map(|len| IpNet::new(ip, *len).ok())
            .find_map(|net| self.paths.get(&net.trunc()))
    }
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
        let vips = BTreeSet::from(["10.96.0.1", "10.5.0.1", "192.0.2.1", "fd96::1"].map(ip));
        let all = with_vips(&paths, &vips, &[ip(OWN4)]);
        let all = Covering::of(&all);
        let of = |vip: &str| all.longest(ip(vip)).copied();
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
