//! The registry from the agent of this node, or from control: a client on demand, which holds what its workload dials and nothing else. Becomes a
//! `Snapshot` in `xds/world.rs`; the streams are the room `xds/`.

mod world;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::{Demand, Feed, Status};
use crate::model::snapshot::Usage;
use crate::model::{Own, Snapshot};
use crate::xds::message::Node;
use crate::xds::{Connect, DemandLimits, Demands, Follower, Following, Kind, Needs, Shared, address_key};

/// How long a sidecar keeps what nothing has dialled.
const IDLE: Duration = Duration::from_secs(300);
/// How often it is looked what has been dialled.
const LOOK: Duration = Duration::from_secs(20);
/// Addresses that a workload dials within the time that they are kept. Beyond it the oldest go first.
const NAMES: usize = 8192;

/// What is known to be there, as long as the future runs. `teller` is whom messages name.
pub fn follow(
    own: &Own,
    teller: &'static str,
    connect: Connect,
) -> (Feed, Demand, impl Future<Output = ()> + Send + use<>) {
    follow_for(
        own,
        teller,
        connect,
        DemandLimits {
            idle: IDLE,
            names: NAMES,
        },
    )
}

fn follow_for(
    own: &Own,
    teller: &'static str,
    connect: Connect,
    limits: DemandLimits,
) -> (Feed, Demand, impl Future<Output = ()> + Send + use<>) {
    let shared = Arc::new(Shared::default());
    let demands = Demands::new(limits);
    let names: Vec<Arc<str>> = own.addresses.iter().map(|ip| address_key("", *ip)).collect();
    let mut needs = demands.needs();
    needs.add(&names, Instant::now());
    let (following, followed) = watch::channel(Following::default());
    let follower = Follower {
        node: node(own),
        shared: shared.clone(),
        demands: demands.clone(),
        connect,
        following,
    };
    // Nothing is known, and that is known: whoever needs to know waits.
    let nothing = Snapshot::default().with_known(HashMap::new());
    let (snapshots, snapshots_rx) = watch::channel(Arc::new(nothing));
    let (status, status_rx) = watch::channel(Status {
        generation: 0,
        loaded: SystemTime::now(),
        failures: 0,
        error: Some(format!("{teller} has not answered yet")),
        warnings: Vec::new(),
    });
    let publisher = Publisher {
        teller,
        shared,
        demands: demands.clone(),
        names,
        _own: needs,
        namespace: own.identity.namespace().to_owned(),
        snapshots,
        status,
        usage: HashMap::new(),
    };
    let feed = Feed {
        snapshots: snapshots_rx,
        status: status_rx,
    };
    let future = async move {
        tokio::join!(follower.run(), publisher.run(followed));
    };
    (feed, Demand::of(demands), future)
}

/// As a ztunnel says who it is, but for the domain of the cluster behind `svc`: the agent asks for none, and only control is told of it.
fn node(own: &Own) -> Node {
    let addresses: Vec<String> = own.addresses.iter().map(ToString::to_string).collect();
    let first = addresses.first().map_or("", String::as_str);
    let namespace = own.identity.namespace();
    let id = format!("sidecar~{first}~{}.{namespace}~{namespace}.svc", own.name);
    Node::new(
        id,
        &[
            ("NAME", &own.name),
            ("NAMESPACE", namespace),
            ("INSTANCE_IPS", &addresses.join(",")),
            ("NODE_NAME", &own.node),
        ],
    )
}

struct Publisher {
    teller: &'static str,
    shared: Arc<Shared>,
    demands: Arc<Demands>,
    /// Of the workload's own addresses.
    names: Vec<Arc<str>>,
    _own: Needs,
    namespace: String,
    snapshots: watch::Sender<Arc<Snapshot>>,
    status: watch::Sender<Status>,
    usage: HashMap<IpAddr, Arc<Usage>>,
}

impl Publisher {
    async fn run(mut self, mut following: watch::Receiver<Following>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rounds = 0;
        loop {
            tokio::select! {
                changed = following.changed() => if changed.is_err() {
                    return;
                },
                _ = look.tick() => {
                    self.keep_used(Instant::now());
                    continue;
                }
            }
            let now = following.borrow_and_update().clone();
            match self.missing() {
                None if now.rounds != rounds => {
                    rounds = now.rounds;
                    self.publish(now);
                }
                None => self.tell(now.error, now.refused),
                Some(missing) => self.tell(Some(now.error.unwrap_or(missing)), now.refused),
            }
        }
    }

    /// What has to be known before anything is decided.
    fn missing(&self) -> Option<String> {
        let store = self.shared.lock();
        if !store.is_complete(Kind::Authorization) {
            return Some(format!(
                "{} has not told the authorization policies yet",
                self.teller
            ));
        }
        let unknown = self.names.iter().find(|name| !store.knows(Kind::Address, name))?;
        Some(format!(
            "{} has not told yet which workload has the address {unknown}",
            self.teller
        ))
    }

    fn publish(&mut self, now: Following) {
        let (world, warnings) = {
            let store = self.shared.lock();
            let known = store
                .known()
                .filter_map(|name| name.strip_prefix('/')?.parse().ok());
            let mut usage = HashMap::new();
            for ip in known {
                let used = self.usage.get(&ip).cloned().unwrap_or_default();
                usage.insert(ip, used);
            }
            self.usage = usage;
            world::build(&store, &self.snapshots.borrow(), &self.namespace)
        };
        let world = world.with_known(self.usage.clone());
        let generation = world.generation;
        tokio::spawn(super::retire::retire(
            self.snapshots.send_replace(Arc::new(world)),
        ));
        self.status.send_modify(|status| {
            *status = Status {
                generation,
                loaded: SystemTime::now(),
                failures: now.refused,
                error: now.error,
                warnings,
            };
        });
    }

    fn tell(&self, error: Option<String>, failures: u64) {
        self.status.send_if_modified(|status| {
            let changed = (&status.error, status.failures) != (&error, failures);
            (status.error, status.failures) = (error, failures);
            changed
        });
    }

    fn keep_used(&self, now: Instant) {
        for (ip, usage) in &self.usage {
            if usage.take() {
                self.demands.touch(&address_key("", *ip), now);
            }
        }
    }
}

#[cfg(test)]
mod tests;
