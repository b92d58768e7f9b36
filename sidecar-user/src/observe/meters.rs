//! Counters and gauges that roles set, beside those of connections. Their names live here and nowhere else.
//!
//! A new one is a line in the table below and a row of `docs/observability.md`; a test compares the two.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Metric, Registry};

/// `field: type = name [label: values], what it counts;` where only a [`By`] has a label.
macro_rules! meters {
    ($($field:ident: $kind:ty = $name:literal $([$label:literal: $($value:literal),+])?, $help:literal;)*) => {
        /// Handles; each is one atomic, cheap to clone and to write from any thread.
        #[derive(Clone, Debug)]
        pub struct Meters {
            $(#[doc = concat!("`", $name, "`: ", $help)] pub $field: $kind,)*
        }

        impl Meters {
            pub(super) fn register(registry: &mut Registry) -> Self {
                Self {
                    $($field: <$kind>::register(registry, $name, $help $(, $label, &[$($value),+])?),)*
                }
            }
        }
    };
}

meters! {
    tunnels: By<Gauge> = "outrigger_tunnels_open" ["direction": "inbound", "outbound"],
        "HBONE tunnels open now";
    identity_expiry: Gauge = "outrigger_identity_expiry_timestamp_seconds",
        "When the current certificate expires, 0 without one";
    identity_renewals: Counter = "outrigger_identity_renewals_total",
        "Certificates received";
    identity_renewal_errors: Counter = "outrigger_identity_renewal_errors_total",
        "Attempts to get a certificate that failed";
    registry_generation: Gauge = "outrigger_registry_generation",
        "Generation of the registry in force, 0 before the first";
    registry_reload_errors: Counter = "outrigger_registry_reload_errors_total",
        "Registry changes that were refused; the last good one stays in force";
    interception_generation: Gauge = "outrigger_interception_policy_generation",
        "Generation of the interception policy in force, 0 without a file";
    interception_reload_errors: Counter = "outrigger_interception_policy_reload_errors_total",
        "Interception policy changes that were refused; the last good one stays in force";
    interception_proven: Family<[(&'static str, &'static str); 2], Gauge> = "outrigger_interception_proven",
        "1 while connections of this direction and family are seen to get to this proxy by way of the kernel programs";
    foreign_programs: By<Gauge> = "outrigger_interception_foreign_programs" ["order": "before", "after"],
        "Programs of other owners at the hooks of this proxy, by whether they run before its own";
    existing_connections: By<Gauge> = "outrigger_interception_existing_connections" ["outcome": "kept", "destroyed"],
        "Connections that were open before the pod was intercepted, as this proxy found them";
    plaintext_accepted: Counter = "outrigger_inbound_plaintext_accepted_total",
        "Inbound plaintext connections accepted in permissive mode";
    plaintext_refused: Counter = "outrigger_inbound_plaintext_refused_total",
        "Inbound plaintext connections refused in strict mode by the proxy";
    denied: By<Counter> = "outrigger_inbound_denied_total" ["transport": "plain", "hbone"],
        "Inbound connections denied by an authorization policy";
    unlisted_refused: Counter = "outrigger_inbound_unlisted_refused_total",
        "Inbound connections refused because the registry has policies that may be meant for this workload, and does not list it";
    workload_listed: Gauge = "outrigger_registry_workload_listed",
        "Whether the registry lists this workload, by its name or an address";
    dry_run: By<Counter> = "outrigger_inbound_dry_run_total" ["verdict": "allow", "deny"],
        "Inbound connections by what policies with dryRun would have decided, while there are any";
    policy_cuts: Counter = "outrigger_inbound_policy_cuts_total",
        "Inbound connections that were open, or being opened, when they were forbidden, and were reset";
    streams_abandoned: Counter = "outrigger_inbound_streams_abandoned_total",
        "Tunnelled connections that their client gave up before anything was dialled for them";
    tunnels_ended: By<Counter> = "outrigger_inbound_tunnels_ended_total"
        ["reason": "control_flood", "reset_flood", "identity_quota", "untrusted"],
        "Inbound tunnels that this proxy ended, by reason";
    client_ports_changed: Counter = "outrigger_outbound_client_ports_changed_total",
        "Plaintext connections that could not come from the application's own port";
    client_claims_refused: Counter = "outrigger_inbound_client_claims_refused_total",
        "Tunnelled connections whose peer named a client that is not believed";
}

impl Meters {
    /// To be told of every outbound tunnel that opens (+1) and closes (-1).
    pub fn outbound_tunnels(&self) -> impl Fn(i64) + use<> {
        follow(self.tunnels.of("outbound"))
    }

    /// The same for inbound tunnels.
    pub fn inbound_tunnels(&self) -> impl Fn(i64) + use<> {
        follow(self.tunnels.of("inbound"))
    }

    /// An inbound tunnel that we ended, and why.
    pub fn tunnel_ended(&self, reason: &'static str) {
        self.tunnels_ended.of(reason).inc();
    }
}

fn follow(gauge: Gauge) -> impl Fn(i64) {
    move |n| {
        gauge.inc_by(n);
    }
}

/// One metric for each value of a label. The values are static, so their number is bounded; those of the table are
/// shown from the start, the way a counter without a label is.
#[derive(Clone, Debug)]
pub struct By<M> {
    label: &'static str,
    family: Family<[(&'static str, &'static str); 1], M>,
}

impl<M: Clone + Default> By<M> {
    pub fn of(&self, value: &'static str) -> M {
        self.family.get_or_create(&[(self.label, value)]).clone()
    }
}

trait Register {
    fn register(registry: &mut Registry, name: &str, help: &str) -> Self;
}

impl<M: Metric + Clone + Default> Register for M {
    fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
        let metric = M::default();
        register(registry, name, help, metric.clone());
        metric
    }
}

impl<M> By<M>
where
    M: Clone + Default,
    Family<[(&'static str, &'static str); 1], M>: Metric,
{
    fn register(
        registry: &mut Registry,
        name: &str,
        help: &str,
        label: &'static str,
        values: &[&'static str],
    ) -> Self {
        let family = Family::default();
        register(registry, name, help, Family::clone(&family));
        let by = Self { label, family };
        for value in values {
            by.of(value);
        }
        by
    }
}

/// The library adds `_total` to the name of a counter.
fn register(registry: &mut Registry, name: &str, help: &str, metric: impl Metric) {
    registry.register(name.trim_end_matches("_total"), help, metric);
}

pub(super) fn register_build(registry: &mut Registry) {
    registry.register_collector(Box::new(BuildInfo));
}

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
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}
