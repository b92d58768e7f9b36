//! What the sidecars of this node are told of the mesh: the agent is one client of the control process for all of them, and keeps
//! what they need while that is away. It decides nothing about a connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error_chain;
use crate::observe::{Figure, Observer};
use crate::uplink::Control;
use crate::xds::message::Node;
use crate::xds::{Connect, DemandLimits, Demands, Discovery, Follower, Following, Guests, Link, Shared};

/// How long a name is kept that no sidecar of the node has a use for.
const IDLE: Duration = Duration::from_secs(60);
/// Of all pods of a node.
const NAMES: usize = 1 << 16;

/// Begins to follow, and returns what serves the sidecars.
pub(super) fn open(control: Arc<Control>, observer: &Observer, tasks: &mut JoinSet<()>) -> Discovery {
    let shared = Arc::new(Shared::default());
    let demands = Demands::new(DemandLimits {
        idle: IDLE,
        names: NAMES,
    });
    let (tell, following) = watch::channel(Following::default());
    let follower = Follower {
        node: Node::new("agent~~~".to_owned(), &[]),
        shared: shared.clone(),
        demands: demands.clone(),
        connect: connect(control),
        following: tell,
    };
    tasks.spawn(follower.run());
    let service = Discovery::new(shared.clone(), Guests::Sidecars(demands.clone()));
    let served = service.clone();
    observer.figures(move || figures(&served, &shared, &demands, &following.borrow()));
    service
}

fn connect(control: Arc<Control>) -> Connect {
    Arc::new(move || {
        let control = control.clone();
        Box::pin(async move {
            let token = control.token().await.map_err(|error| error_chain(&error))?;
            let channel = control.channel().await.map_err(|error| error_chain(&error))?;
            Ok(Link::new(channel, Some(token)))
        })
    })
}

fn figures(served: &Discovery, shared: &Shared, demands: &Demands, following: &Following) -> Vec<Figure> {
    let counts = served.counts();
    let gauge = |name, help, value: usize| Figure::gauge(name, help).value(value as u64);
    vec![
        gauge(
            "outrigger_agent_discovery_streams",
            "Sidecars that follow what they dial by a stream from this agent",
            counts.streams,
        ),
        gauge(
            "outrigger_agent_discovery_names",
            "Addresses that sidecars of this node need",
            demands.len(),
        ),
        gauge(
            "outrigger_agent_discovery_resources",
            "Workloads, services and policies that are kept for them",
            shared.lock().len(),
        ),
        gauge(
            "outrigger_agent_discovery_up",
            "Whether the control process answers, 1 for yes",
            usize::from(following.rounds > 0 && following.error.is_none()),
        ),
        Figure::counter(
            "outrigger_agent_discovery_sent",
            "Workloads, services and policies that were sent to sidecars",
        )
        .value(counts.resources),
        Figure::counter(
            "outrigger_agent_discovery_refused",
            "Resources that were refused, by this agent or by a sidecar",
        )
        .value(counts.refused + following.refused),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_documented() {
        const MANUAL: &str = include_str!("../../../docs/observability.md");
        let demands = Demands::new(DemandLimits {
            idle: IDLE,
            names: NAMES,
        });
        let shared = Arc::new(Shared::default());
        let served = Discovery::new(shared.clone(), Guests::Sidecars(demands.clone()));
        for figure in figures(&served, &shared, &demands, &Following::default()) {
            let name = figure.exposed_name();
            assert!(MANUAL.contains(&format!("`{name}`")), "{name}");
        }
    }
}
