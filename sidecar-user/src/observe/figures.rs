//! Counters and gauges that a role reads somewhere else, as values: it says their names and numbers when it is asked.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;

/// One metric with its series.
#[derive(Debug)]
pub struct Figure {
    /// Of a counter without `_total`.
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    label: Option<&'static str>,
    /// By the label's value.
    series: Vec<(&'static str, u64)>,
}

impl Figure {
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::Counter)
    }

    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::Gauge)
    }

    fn new(name: &'static str, help: &'static str, kind: MetricType) -> Self {
        Self {
            name,
            help,
            kind,
            label: None,
            series: Vec::new(),
        }
    }

    pub fn value(mut self, value: u64) -> Self {
        self.series = vec![("", value)];
        self
    }

    /// A series for each value of the label. Values are static, so their number is bounded.
    pub fn by(mut self, label: &'static str, series: impl IntoIterator<Item = (&'static str, u64)>) -> Self {
        self.label = Some(label);
        self.series = series.into_iter().collect();
        self
    }

    /// As a scraper sees it.
    pub fn exposed_name(&self) -> String {
        match self.kind {
            MetricType::Counter => format!("{}_total", self.name),
            _ => self.name.to_owned(),
        }
    }
}

pub(super) struct Figures(Box<dyn Fn() -> Vec<Figure> + Send + Sync>);

impl Figures {
    pub(super) fn new(read: impl Fn() -> Vec<Figure> + Send + Sync + 'static) -> Self {
        Self(Box::new(read))
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for figure in (self.0)() {
            let mut metric = encoder.encode_descriptor(figure.name, figure.help, None, figure.kind)?;
            for (value, number) in figure.series {
                match figure.label {
                    Some(label) => {
                        number_of(figure.kind, &mut metric.encode_family(&[(label, value)])?, number)?
                    }
                    None => number_of(figure.kind, &mut metric, number)?,
                }
            }
        }
        Ok(())
    }
}

fn number_of(kind: MetricType, series: &mut MetricEncoder<'_>, number: u64) -> fmt::Result {
    match kind {
        MetricType::Counter => series.encode_counter::<[(&str, &str); 0], u64, u64>(&number, None),
        _ => series.encode_gauge(&i64::try_from(number).unwrap_or(i64::MAX)),
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Observer;
    use crate::observe::exposition::Format;

    #[test]
    fn a_role_s_figures_stand_beside_those_of_the_process_and_no_others() {
        let observer = Observer::plain();
        observer.figures(|| {
            vec![
                Figure::counter("things", "Things").by("reason", [("this", 1), ("that", 2)]),
                Figure::gauge("level", "Level").value(7),
            ]
        });
        let text = observer
            .renderer()
            .render(Format::Prometheus, std::time::Instant::now())
            .unwrap();
        for line in [
            "things_total{reason=\"this\"} 1",
            "things_total{reason=\"that\"} 2",
            "level 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(text.contains("process_open_fds") && text.contains("outrigger_build_info"));
        assert!(!text.contains("outrigger_tunnels_open"), "it has no tunnels");
    }
}
