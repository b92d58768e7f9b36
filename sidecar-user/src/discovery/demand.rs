//! Asking a source for an address before a connection is decided about. Decides nothing; the walks do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::model::Snapshot;
use crate::xds::{Demands, address_key};

/// An agent that holds the answer gives it in a millisecond, and the control process in some. An application that waits
/// longer than this is told that it cannot be connected.
const PATIENCE: Duration = Duration::from_secs(5);

/// Of a source that tells everything it costs nothing. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Demand(Option<Arc<Demands>>);

impl Demand {
    pub(crate) fn of(demands: Arc<Demands>) -> Self {
        Self(Some(demands))
    }

    /// The world in which all is known about this address. To be called where the present one does not know it. `None`: the
    /// source has not answered.
    pub async fn ask(&self, world: &watch::Receiver<Arc<Snapshot>>, ip: IpAddr) -> Option<Arc<Snapshot>> {
        self.want(ip);
        self.wait(world, |world| world.knows(ip)).await
    }

    /// Has the source asked, for whoever hears of each new world anyway.
    pub fn want(&self, ip: IpAddr) {
        if let Some(demands) = &self.0 {
            demands.touch(&address_key("", ip), Instant::now());
        }
    }

    /// The world once the source has told of this workload and its policies. `None`: it has not yet.
    pub async fn begun(&self, world: &watch::Receiver<Arc<Snapshot>>) -> Option<Arc<Snapshot>> {
        self.wait(world, |world| world.generation > 0).await
    }

    async fn wait(
        &self,
        world: &watch::Receiver<Arc<Snapshot>>,
        enough: impl Fn(&Snapshot) -> bool,
    ) -> Option<Arc<Snapshot>> {
        let mut world = world.clone();
        let found = timeout(PATIENCE, world.wait_for(|world| enough(world))).await;
        let found = found.ok()?.ok()?;
        Some(found.clone())
    }
}
