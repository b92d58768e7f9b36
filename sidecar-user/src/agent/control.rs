//! What the agent serves its sidecars of the control plane, and how it reaches the control process itself.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::discovery;
use crate::error_chain;
use crate::kubernetes::{self, Client};
use crate::observe::{Figure, Observer};
use crate::uplink::{self, Addresses, Control, Counts, Local, Relay};

/// Begins to serve. `None`: this agent knows of no control process.
pub(super) fn open(
    config: Option<uplink::Config>,
    client: Option<Client>,
    observer: &Observer,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<Option<Local>> {
    let Some(config) = config else {
        return Ok(None);
    };
    let addresses = addresses(&config, client, tasks)?;
    let control = Arc::new(Control::new(config, addresses)?);
    let discovery = discovery::open(control.clone(), observer, tasks);
    let relay = Relay::new(control);
    let counted = relay.clone();
    observer.figures(move || figures(counted.counts()));
    let (local, incoming) = uplink::incoming();
    let serving = uplink::serve(relay.routes().add_service(discovery.service()), incoming);
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(
                error = error_chain(&error),
                "no sidecar reaches the control plane through this agent"
            );
        }
    });
    Ok(Some(local))
}

/// In a cluster those of the pods behind the Service: nothing but the API server is needed to know them, no DNS and no kube-proxy.
fn addresses(
    config: &uplink::Config,
    client: Option<Client>,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<Addresses> {
    let (Some((service, port)), Some(client)) = (Control::service(config)?, client) else {
        return Ok(Addresses::Resolved);
    };
    let (tell, known) = watch::channel(Vec::new());
    tasks.spawn(async move {
        kubernetes::follow_endpoints(&client, &service.namespace, &service.name, port, &tell).await;
    });
    Ok(Addresses::Followed(known))
}

fn figures(counts: Counts) -> Vec<Figure> {
    vec![
        Figure::counter(
            "outrigger_agent_certificate_requests",
            "Requests for certificates that came from sidecars of this node, by what became of them",
        )
        .by(
            "outcome",
            [("answered", counts.answered), ("unanswered", counts.unanswered)],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_documented() {
        const MANUAL: &str = include_str!("../../../docs/observability.md");
        for figure in figures(Counts::default()) {
            let name = figure.exposed_name();
            assert!(MANUAL.contains(&format!("`{name}`")), "{name}");
        }
    }
}
