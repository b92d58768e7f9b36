//! Memory for buffers, and how near to its bound it is. Read at each scrape. The places at each door are in `doors.rs`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

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
        metric.encode_counter::<[(&str, &str); 0], u64, u64>(&(memory.waits as u64), None)
    }
}

impl fmt::Debug for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bounds")
    }
}
