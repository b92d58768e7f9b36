//! What is bounded, and how near to its bound it is: memory for buffers, and the places at each door. Read at each scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::admission::Admission;

/// The process's buffers, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct BufferMemory {
    pub used: usize,
    pub peak: usize,
    pub limit: usize,
    /// How often something had to wait for memory.
    pub waits: usize,
}

/// What the roles bring.
pub struct Bounds {
    pub memory: Box<dyn Fn() -> BufferMemory + Send + Sync>,
    /// Each with its name.
    pub doors: Vec<(&'static str, Admission)>,
}

impl Collector for Bounds {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let memory = (self.memory)();
        let gauges = [
            (
                "outrigger_buffer_memory_bytes",
                "Memory of bytes that wait, of all connections",
                memory.used,
            ),
            (
                "outrigger_buffer_memory_peak_bytes",
                "The most of it since the start",
                memory.peak,
            ),
            (
                "outrigger_buffer_memory_limit_bytes",
                "What it may be",
                memory.limit,
            ),
        ];
        for (name, help, value) in gauges {
            super::meters::gauge(&mut encoder, name, help, value as f64)?;
        }
        let help = "Tunnels that had to wait for memory before more was read";
        let mut metric =
            encoder.encode_descriptor("outrigger_buffer_memory_waits", help, None, MetricType::Counter)?;
        metric.encode_counter::<[(&str, &str); 0], u64, u64>(&(memory.waits as u64), None)?;
        self.encode_doors(&mut encoder)
    }
}

impl Bounds {
    fn encode_doors(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Connections that have proved nothing yet, by door";
        let mut metric =
            encoder.encode_descriptor("outrigger_admission_waiting", help, None, MetricType::Gauge)?;
        for (door, admission) in &self.doors {
            let waiting = admission.counts().waiting as i64;
            metric.encode_family(&[("door", *door)])?.encode_gauge(&waiting)?;
        }
        let help = "How many of them there may be, by door";
        let mut metric =
            encoder.encode_descriptor("outrigger_admission_places", help, None, MetricType::Gauge)?;
        for (door, admission) in &self.doors {
            let places = admission.limits().places as i64;
            metric.encode_family(&[("door", *door)])?.encode_gauge(&places)?;
        }
        let help = "Connections that had to give their place to a later one, by door and reason";
        let mut metric =
            encoder.encode_descriptor("outrigger_admission_evicted", help, None, MetricType::Counter)?;
        for (door, admission) in &self.doors {
            let counts = admission.counts();
            for (reason, n) in [
                ("quota", counts.evicted_by_quota),
                ("full", counts.evicted_when_full),
            ] {
                metric
                    .encode_family(&[("door", *door), ("reason", reason)])?
                    .encode_counter::<[(&str, &str); 0], u64, u64>(&n, None)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounds")
            .field("doors", &self.doors)
            .finish_non_exhaustive()
    }
}
