//! What goes wrong in the process itself. Counted elsewhere, by those who log and by the hook for panics; shown here.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

/// Counters of the process, read at each scrape.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// `outrigger_log_lines_dropped_total`
    pub log_lines_dropped: fn() -> u64,
    /// `outrigger_log_lines_suppressed_total`
    pub log_lines_suppressed: fn() -> u64,
    /// `outrigger_panics_total`
    pub panics: fn() -> u64,
}

impl Collector for Faults {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for (name, help, read) in [
            (
                "outrigger_log_lines_dropped",
                "Lines that were lost because nobody read the log fast enough",
                self.log_lines_dropped,
            ),
            (
                "outrigger_log_lines_suppressed",
                "Lines that were left out of bursts, where the log has their number",
                self.log_lines_suppressed,
            ),
            (
                "outrigger_panics",
                "Bugs that were met, each at the cost of one connection or one attempt",
                self.panics,
            ),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            metric.encode_counter::<[(&str, &str); 0], u64, u64>(&read(), None)?;
        }
        Ok(())
    }
}
