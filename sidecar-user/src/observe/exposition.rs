//! Connection metrics as text: OpenMetrics, or the older Prometheus format for those who ask for nothing better.
//!
//! Everything is computed when it is scraped; the data path formats nothing. Who gets which rendering is `renderer.rs`.

use std::fmt;
use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::labels::{cause, party};
use super::lock;
use super::series::{BOUNDS, Histogram, RATIO_BOUNDS, Series};
use super::shard::{Common, Shard, tally};
use crate::model::Bottleneck;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// OpenMetrics for a scraper that names it.
    pub(super) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

pub(super) fn render(registry: &Registry, format: Format) -> Result<String, fmt::Error> {
    let mut out = String::new();
    text::encode(&mut out, registry)?;
    match format {
        Format::OpenMetrics => Ok(out),
        Format::Prometheus => Ok(to_prometheus(&out)),
    }
}

/// The two formats differ in this: OpenMetrics describes a counter without its `_total`, has UNIT lines and an end.
fn to_prometheus(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if line.starts_with("# HELP ") {
            help = Some(line);
        } else if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').unwrap_or((described, "untyped"));
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some(words) = help
                .take()
                .and_then(|l| l.strip_prefix("# HELP ")?.strip_prefix(name))
            {
                out.extend(["# HELP ", name, suffix, words, "\n"]);
            }
            out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with("# ") {
            out.extend([line, "\n"]);
        }
    }
    out
}

/// The metrics of connections, over all shards.
#[derive(Debug)]
pub(super) struct Connections {
    pub common: Arc<Common>,
    pub shards: Arc<Mutex<Vec<Arc<Shard>>>>,
}

type Sums = Vec<(Vec<(&'static str, String)>, Series)>;

impl Collector for Connections {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let shards = lock(&self.shards).clone();
        let (sums, tally) = tally(&self.common, &shards);
        let sums: Sums = sums
            .into_iter()
            .map(|(labels, sum)| (labels.text(), sum))
            .collect();

        counter(
            &mut encoder,
            "outrigger_tcp_connections_opened",
            "Connections whose upstream became usable, or that failed before",
            &sums,
            |series| series.opened,
        )?;
        closed(&mut encoder, &sums)?;
        let help = "Connections that are counted as opened and not as closed";
        let name = "outrigger_tcp_connections_active";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, series) in &sums {
            metric
                .encode_family(labels)?
                .encode_gauge(&(series.active as i64))?;
        }
        let help = "Connections accepted whose upstream is not usable yet";
        let name = "outrigger_tcp_connections_pending";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (direction, n) in [
            ("inbound", tally.pending_inbound),
            ("outbound", tally.pending_outbound),
        ] {
            metric
                .encode_family(&[("direction", direction)])?
                .encode_gauge(&(n as i64))?;
        }
        counter(
            &mut encoder,
            "outrigger_tcp_sent_bytes",
            "Bytes from the client towards the upstream, open connections included",
            &sums,
            |series| series.sent,
        )?;
        counter(
            &mut encoder,
            "outrigger_tcp_received_bytes",
            "Bytes from the upstream towards the client, open connections included",
            &sums,
            |series| series.received,
        )?;
        histogram(
            &mut encoder,
            "outrigger_tcp_connect_duration_seconds",
            "From accepting a connection to its upstream being usable",
            &sums,
            (&BOUNDS, |series| &series.connect),
        )?;
        histogram(
            &mut encoder,
            "outrigger_tls_handshake_duration_seconds",
            "TLS handshakes that a connection waited for",
            &sums,
            (&BOUNDS, |series| &series.handshake),
        )?;
        histogram(
            &mut encoder,
            "outrigger_tcp_rtt_seconds",
            "Smoothed round trip time of the connection that leaves the pod, as its kernel had it when a connection closed",
            &sums,
            (&BOUNDS, |series| &series.rtt),
        )?;
        histogram(
            &mut encoder,
            "outrigger_tcp_retransmit_ratio",
            "Segments that were sent again, of those that were sent on the connection that leaves the pod",
            &sums,
            (&RATIO_BOUNDS, |series| &series.retransmits),
        )?;
        bottlenecks(&mut encoder, &sums)?;
        let mut metric = encoder.encode_descriptor(
            "outrigger_metrics_label_overflow",
            "Connections counted under `overflow`, because the cap on label sets was reached",
            None,
            MetricType::Counter,
        )?;
        count(&mut metric, self.common.labels.overflowed())
    }
}

fn counter(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    sums: &Sums,
    value: impl Fn(&Series) -> u64,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, series) in sums {
        count(&mut metric.encode_family(labels)?, value(series))?;
    }
    Ok(())
}

fn closed(encoder: &mut DescriptorEncoder, sums: &Sums) -> fmt::Result {
    let help = "Connections closed, by who ended them and why";
    let name = "outrigger_tcp_connections_closed";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, series) in sums {
        for (outcome, n) in &series.closed {
            let mut labels = labels.clone();
            labels.push(("by", party(outcome.by).into()));
            labels.push(("cause", cause(outcome.cause).into()));
            count(&mut metric.encode_family(&labels)?, *n)?;
        }
    }
    Ok(())
}

/// Only those that have held something up have lines.
fn bottlenecks(encoder: &mut DescriptorEncoder, sums: &Sums) -> fmt::Result {
    let help = "Connections closed that were held up, by what held them up most";
    let name = "outrigger_tcp_bottlenecks";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, series) in sums {
        for (bottleneck, n) in Bottleneck::ALL.into_iter().zip(series.bottlenecks) {
            if n > 0 {
                let mut labels = labels.clone();
                labels.push(("bottleneck", bottleneck.name().into()));
                count(&mut metric.encode_family(&labels)?, n)?;
            }
        }
    }
    Ok(())
}

/// A label set that never had a value has no lines: twenty zeros each would be most of the page.
fn histogram(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    sums: &Sums,
    (bounds, pick): (&[f64; BOUNDS.len()], fn(&Series) -> &Histogram),
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, series) in sums {
        let values = pick(series);
        if values.count() > 0 {
            metric.encode_family(labels)?.encode_histogram::<NoLabelSet>(
                values.sum,
                values.count(),
                &values.buckets(bounds),
                None,
            )?;
        }
    }
    Ok(())
}

fn count(metric: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_describes_a_counter_by_its_full_name() {
        let text = "# HELP a words a b.\n# TYPE a counter\na_total 1\n\
                    # HELP b_seconds more.\n# TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 2\n# EOF\n";
        assert_eq!(
            to_prometheus(text),
            "# HELP a_total words a b.\n# TYPE a_total counter\na_total 1\n\
             # HELP b_seconds more.\n# TYPE b_seconds gauge\nb_seconds 2\n"
        );
    }
}
