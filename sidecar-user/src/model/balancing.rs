//! How a service shares its connections among its endpoints: which of them are near enough, healthy enough, and for how
//! long a client stays with one. Chooses none; `route/` does.

use std::cmp::Ordering;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::workload::{Location, Workload};

/// The default has no preference, and takes healthy endpoints only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balancing {
    /// What an endpoint has in common with the client, in descending order of weight. Its rank is how many of these match
    /// before the first that does not.
    pub scopes: Vec<Scope>,
    pub mode: BalanceMode,
    pub health: HealthPolicy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Region,
    Zone,
    Subzone,
    Node,
    /// There is one cluster, so this always matches.
    Cluster,
    /// There is one network, so this always matches.
    Network,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BalanceMode {
    /// Scopes decide nothing.
    #[default]
    Any,
    /// Only endpoints that match every scope are used.
    Strict,
    /// Endpoints of the highest rank that has a usable one are used.
    Failover,
    /// Connections go to the virtual address itself, in plain TCP.
    Passthrough,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HealthPolicy {
    #[default]
    OnlyHealthy,
    /// Endpoints that are not ready, too.
    AllowAll,
}

/// A client stays with the endpoint that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Since the client's last connection to the service.
    pub timeout: Duration,
}

impl Balancing {
    /// Do the scopes decide anything?
    pub fn is_ranked(&self) -> bool {
        matches!(self.mode, BalanceMode::Strict | BalanceMode::Failover) && !self.scopes.is_empty()
    }

    /// Puts endpoints into the order that `nearest` searches: those that match a number of scopes stand side by side.
    pub(super) fn sort(&self, endpoints: &mut [Endpoint]) {
        if self.is_ranked() {
            endpoints.sort_by(|a, b| {
                let (a, b) = (a.workload.location(), b.workload.location());
                let orders = self.scopes.iter().map(|scope| scope.of(a).cmp(scope.of(b)));
                orders.fold(Ordering::Equal, Ordering::then)
            });
        }
    }

    /// The endpoints that match the first `scopes` scopes as seen from `here`. `endpoints` is a slice that a snapshot gives
    /// for the service, or one that this has returned for fewer scopes.
    pub fn nearest<'e>(
        &self,
        endpoints: &'e [Endpoint],
        here: Location<'_>,
        scopes: usize,
    ) -> &'e [Endpoint] {
        let scopes = self.scopes.iter().take(scopes);
        scopes.fold(endpoints, |endpoints, scope| {
            let wanted = scope.of(here);
            // Who does not know the own node is on the node of nobody.
            if *scope == Scope::Node && wanted.is_empty() {
                return &[];
            }
            let order = |endpoint: &Endpoint| scope.of(endpoint.workload.location()).cmp(wanted);
            let (_, rest) = endpoints.split_at(endpoints.partition_point(|e| order(e).is_lt()));
            let (found, _) = rest.split_at(rest.partition_point(|e| order(e).is_eq()));
            found
        })
    }

    pub fn is_healthy_enough(&self, workload: &Workload) -> bool {
        workload.healthy || self.health == HealthPolicy::AllowAll
    }
}

impl Scope {
    /// In plain words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::Zone => "zone",
            Self::Subzone => "subzone",
            Self::Node => "node",
            Self::Cluster => "cluster",
            Self::Network => "network",
        }
    }

    fn of(self, location: Location<'_>) -> &str {
        let Location { locality, node } = location;
        match self {
            Self::Region => &locality.region,
            Self::Zone => &locality.zone,
            Self::Subzone => &locality.subzone,
            Self::Node => node,
            Self::Cluster | Self::Network => "",
        }
    }
}

#[cfg(test)]
mod tests;
