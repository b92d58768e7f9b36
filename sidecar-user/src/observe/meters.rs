//! Counters and gauges that roles set, beside those of connections. Their names live here and nowhere else.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

/// Handles; each is one atomic, cheap to clone and to write from any thread.
#[derive(Clone, Debug)]
pub struct Meters {
    /// `outrigger_tunnels_open{direction="outbound"}`
    pub tunnels_outbound: Gauge,
    /// `outrigger_tunnels_open{direction="inbound"}`
    pub tunnels_inbound: Gauge,
    /// `outrigger_identity_expiry_timestamp_seconds`: seconds since 1970, 0 without a certificate.
    pub identity_expiry: Gauge,
    /// `outrigger_identity_renewals_total`
    pub identity_renewals: Counter,
    /// `outrigger_identity_renewal_errors_total`
    pub identity_renewal_errors: Counter,
    /// `outrigger_registry_generation`
    pub registry_generation: Gauge,
    /// `outrigger_registry_reload_errors_total`
    pub registry_reload_errors: Counter,
    /// `outrigger_interception_policy_generation`
    pub interception_generation: Gauge,
    /// `outrigger_interception_policy_reload_errors_total`
    pub interception_reload_errors: Counter,
    /// `outrigger_inbound_plaintext_accepted_total`
    pub plaintext_accepted: Counter,
    /// `outrigger_inbound_plaintext_refused_total`
    pub plaintext_refused: Counter,
    /// `outrigger_registry_workload_listed`: 1 where the registry lists this workload.
    pub workload_listed: Gauge,
    /// `outrigger_inbound_unlisted_refused_total`
    pub unlisted_refused: Counter,
    /// `outrigger_inbound_dry_run_total{verdict="allow"}`
    pub dry_run_allowed: Counter,
    /// `outrigger_inbound_dry_run_total{verdict="deny"}`
    pub dry_run_denied: Counter,
    /// `outrigger_inbound_policy_cuts_total`
    pub policy_cuts: Counter,
    /// `outrigger_outbound_client_ports_changed_total`
    pub client_ports_changed: Counter,
    /// `outrigger_inbound_client_claims_refused_total`
    pub client_claims_refused: Counter,
    /// `outrigger_inbound_streams_abandoned_total`
    pub streams_abandoned: Counter,
    /// `outrigger_inbound_tunnels_ended_total{reason="…"}`
    tunnels_ended: Family<[(&'static str, &'static str); 1], Counter>,
}

fn follow(gauge: Gauge) -> impl Fn(i64) {
    move |n| {
        gauge.inc_by(n);
    }
}

impl Meters {
    /// To be told of every outbound tunnel that opens (+1) and closes (-1).
    pub fn outbound_tunnels(&self) -> impl Fn(i64) + use<> {
        follow(self.tunnels_outbound.clone())
    }

    /// The same for inbound tunnels.
    pub fn inbound_tunnels(&self) -> impl Fn(i64) + use<> {
        follow(self.tunnels_inbound.clone())
    }

    /// An inbound tunnel that we ended, and why.
    pub fn tunnel_ended(&self, reason: &'static str) {
        self.tunnels_ended.get_or_create(&[("reason", reason)]).inc();
    }

    pub(super) fn register(registry: &mut Registry) -> Self {
        let tunnels = Family::<[(&'static str, &'static str); 1], Gauge>::default();
        registry.register(
            "outrigger_tunnels_open",
            "HBONE tunnels open now",
            tunnels.clone(),
        );
        // A statement each: the guard inside would still be held when the second asks for its own.
        let tunnels_outbound = tunnels.get_or_create(&[("direction", "outbound")]).clone();
        let tunnels_inbound = tunnels.get_or_create(&[("direction", "inbound")]).clone();
        let identity_expiry = Gauge::default();
        registry.register_with_unit(
            "outrigger_identity_expiry_timestamp",
            "When the current certificate expires, 0 without one",
            Unit::Seconds,
            identity_expiry.clone(),
        );
        let registry_generation = Gauge::default();
        registry.register(
            "outrigger_registry_generation",
            "Generation of the registry in force, 0 before the first",
            registry_generation.clone(),
        );
        let workload_listed = Gauge::default();
        registry.register(
            "outrigger_registry_workload_listed",
            "Whether the registry lists this workload, by its name or an address",
            workload_listed.clone(),
        );
        let dry_run = Family::<[(&'static str, &'static str); 1], Counter>::default();
        registry.register(
            "outrigger_inbound_dry_run",
            "Inbound connections by what policies with dryRun would have decided, while there are any",
            dry_run.clone(),
        );
        let dry_run_allowed = dry_run.get_or_create(&[("verdict", "allow")]).clone();
        let dry_run_denied = dry_run.get_or_create(&[("verdict", "deny")]).clone();
        let interception_generation = Gauge::default();
        registry.register(
            "outrigger_interception_policy_generation",
            "Generation of the interception policy in force, 0 without a file",
            interception_generation.clone(),
        );
        let tunnels_ended = Family::<[(&'static str, &'static str); 1], Counter>::default();
        registry.register(
            "outrigger_inbound_tunnels_ended",
            "Inbound tunnels that this proxy ended, by reason",
            tunnels_ended.clone(),
        );
        for reason in TUNNEL_ENDS {
            drop(tunnels_ended.get_or_create(&[("reason", reason)]));
        }
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        Self {
            tunnels_outbound,
            tunnels_inbound,
            identity_expiry,
            identity_renewals: counter("outrigger_identity_renewals", "Certificates received"),
            identity_renewal_errors: counter(
                "outrigger_identity_renewal_errors",
                "Attempts to get a certificate that failed",
            ),
            registry_generation,
            registry_reload_errors: counter(
                "outrigger_registry_reload_errors",
                "Registry changes that were refused; the last good one stays in force",
            ),
            interception_generation,
            interception_reload_errors: counter(
                "outrigger_interception_policy_reload_errors",
                "Interception policy changes that were refused; the last good one stays in force",
            ),
            plaintext_accepted: counter(
                "outrigger_inbound_plaintext_accepted",
                "Inbound plaintext connections accepted in permissive mode",
            ),
            plaintext_refused: counter(
                "outrigger_inbound_plaintext_refused",
                "Inbound plaintext connections refused by the proxy, in strict mode or by policy",
            ),
            workload_listed,
            unlisted_refused: counter(
                "outrigger_inbound_unlisted_refused",
                "Inbound connections refused because the registry has policies that may be meant for this workload, \
                 and does not list it",
            ),
            dry_run_allowed,
            dry_run_denied,
            policy_cuts: counter(
                "outrigger_inbound_policy_cuts",
                "Inbound connections that were open, or being opened, when they were forbidden, and were reset",
            ),
            client_ports_changed: counter(
                "outrigger_outbound_client_ports_changed",
                "Plaintext connections that could not come from the application's own port",
            ),
            client_claims_refused: counter(
                "outrigger_inbound_client_claims_refused",
                "Tunnelled connections whose peer named a client that is not believed",
            ),
            streams_abandoned: counter(
                "outrigger_inbound_streams_abandoned",
                "Tunnelled connections that their client gave up before anything was dialled for them",
            ),
            tunnels_ended,
        }
    }
}

pub(super) fn register_build(registry: &mut Registry) {
    registry.register_collector(Box::new(BuildInfo));
}

/// Why an inbound tunnel is ended by us. All are shown from the start, so that an alert has a zero to begin with.
const TUNNEL_ENDS: [&str; 4] = ["control_flood", "reset_flood", "identity_quota", "untrusted"];

#[derive(Debug)]
struct BuildInfo;

impl Collector for BuildInfo {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let help = "What runs here; always 1";
        let mut metric = encoder.encode_descriptor("outrigger_build_info", help, None, MetricType::Gauge)?;
        let labels = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("arch", std::env::consts::ARCH),
        ];
        metric.encode_family(&labels)?.encode_gauge(&1i64)
    }
}

type Read = dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync;

pub(super) struct KernelCounters {
    read: Box<Read>,
}

impl KernelCounters {
    pub(super) fn new(read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read) }
    }
}

impl Collector for KernelCounters {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let help = "What the kernel side counted, by event";
        let mut metric =
            encoder.encode_descriptor("outrigger_kernel_events", help, None, MetricType::Counter)?;
        for (event, count) in (self.read)() {
            metric
                .encode_family(&[("event", event)])?
                .encode_counter::<[(&str, &str); 0], u64, u64>(&count, None)?;
        }
        Ok(())
    }
}

impl fmt::Debug for KernelCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KernelCounters")
    }
}

/// One unlabelled gauge.
pub(super) fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: f64) -> fmt::Result {
    use prometheus_client::encoding::EncodeMetric;
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}
