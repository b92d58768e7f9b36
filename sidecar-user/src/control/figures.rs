//! The certificate service's counts as metrics, read at each scrape. The only place where their names are.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::pod_certificates::Stats;
use crate::issuer::Service;
use crate::observe::{Figure, Observer};
use crate::xds::{Discovery, ServerCounts};

/// `signing` is what the signer of pod certificates counts, where there is one.
pub(super) fn show(observer: &Observer, service: Arc<Service>, signing: Option<Arc<Stats>>) {
    observer.figures(move || {
        let mut figures = read(&service, SystemTime::now());
        figures.extend(signing.iter().flat_map(|stats| read_signing(stats)));
        figures
    });
}

/// What is served of the mesh, where there is a cluster.
pub(super) fn show_discovery(observer: &Observer, discovery: Discovery) {
    observer.figures(move || read_discovery(discovery.counts()));
}

fn read_discovery(counts: ServerCounts) -> Vec<Figure> {
    vec![
        Figure::gauge(
            "outrigger_discovery_streams",
            "Agents and other proxies that follow the mesh",
        )
        .value(counts.streams as u64),
        Figure::counter(
            "outrigger_discovery_responses",
            "Responses that were sent to them",
        )
        .value(counts.responses),
        Figure::counter(
            "outrigger_discovery_sent",
            "Workloads, services and policies in those responses",
        )
        .value(counts.resources),
        Figure::counter(
            "outrigger_discovery_refused",
            "Resources that a client has refused",
        )
        .value(counts.refused),
        Figure::counter(
            "outrigger_discovery_cut",
            "Streams that were ended because of their client",
        )
        .value(counts.cut),
    ]
}

fn read_signing(stats: &Stats) -> [Figure; 4] {
    let counts = stats.counts();
    [
        Figure::counter(
            "outrigger_pod_certificate_requests",
            "Answers to the requests of kubelets for certificates of pods, by outcome",
        )
        .by("outcome", counts.outcomes),
        Figure::gauge(
            "outrigger_pod_certificate_requests_waiting",
            "Requests of kubelets that have no answer yet",
        )
        .value(counts.waiting),
        Figure::gauge(
            "outrigger_pod_certificates_offered",
            "1 where the API server takes requests for certificates of pods",
        )
        .value(counts.is_offered.into()),
        Figure::counter(
            "outrigger_trust_bundle_errors",
            "Failures to publish the roots in the ClusterTrustBundle of our signer",
        )
        .value(counts.bundle_troubles),
    ]
}

fn read(service: &Service, now: SystemTime) -> Vec<Figure> {
    let (counts, waiting, ca) = (service.counts(), service.waiting(), service.store().current());
    let mut figures = vec![
        Figure::counter("outrigger_ca_certificates_issued", "Certificates signed").value(counts.issued),
        Figure::counter(
            "outrigger_ca_requests_refused",
            "Requests that got no certificate, by reason",
        )
        .by("reason", counts.refused),
        Figure::counter("outrigger_ca_handshakes", "TLS handshakes that were finished")
            .value(counts.handshakes),
        Figure::gauge(
            "outrigger_ca_connections_open",
            "Connections now: those that have proved nothing yet, and those of an identity",
        )
        .by(
            "state",
            [
                ("unproved", waiting.waiting as u64),
                ("authenticated", service.authenticated() as u64),
            ],
        ),
        Figure::counter(
            "outrigger_ca_connections_ended",
            "Connections ended by us, by reason",
        )
        .by(
            "reason",
            counts.ended.into_iter().chain([
                ("source_quota", waiting.evicted_by_quota),
                ("places", waiting.evicted_when_full),
            ]),
        ),
        Figure::gauge(
            "outrigger_ca_roots",
            "Roots that workloads are told to trust; two during a rotation",
        )
        .value(ca.roots() as u64),
        Figure::gauge(
            "outrigger_ca_root_expiry_timestamp_seconds",
            "When the root that signs ends",
        )
        .value(ca.ends().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()),
        Figure::counter(
            "outrigger_ca_state_errors",
            "Failures to read or write the roots; the last good ones stay in force",
        )
        .value(service.store().failures()),
    ];
    // Where they cannot be read there is no number to show; requests are then refused as `tokens_unavailable`.
    if let Some(Ok((good, expired))) = service.tokens().map(|tokens| tokens.count(now)) {
        let figure = Figure::gauge("outrigger_ca_tokens", "Bootstrap tokens that are not revoked");
        figures.push(figure.by("state", [("good", good as u64), ("expired", expired as u64)]));
    }
    figures
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::issuer::Config;
    use crate::issuer::scratch::Scratch;

    #[test]
    fn every_figure_is_documented() {
        const MANUAL: &str = include_str!("../../../docs/observability.md");
        let scratch = Scratch::new();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            state_dir: scratch.join("state"),
            trust_domain: "td.test".to_owned(),
            leaf_ttl: Duration::from_secs(3600),
            server_names: vec![],
        };
        let service = Service::open(&config, 1024).unwrap();
        let signing = read_signing(&Stats::default());
        for figure in read(&service, SystemTime::now())
            .into_iter()
            .chain(signing)
            .chain(read_discovery(ServerCounts::default()))
        {
            let name = figure.exposed_name();
            assert!(MANUAL.contains(&format!("`{name}`")), "{name}");
        }
    }
}
