//! The usual `process_*` metrics, from `/proc/self`. What cannot be read is left out.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::meters::gauge;

#[derive(Debug)]
pub(super) struct Process {
    started: SystemTime,
}

impl Process {
    /// The observer is made at the start of the process, so this moment stands for it.
    pub(super) fn new() -> Self {
        Self {
            started: SystemTime::now(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let encoder = &mut encoder;
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge(
            encoder,
            "process_start_time_seconds",
            "When the process started, in seconds since 1970",
            started.as_secs_f64(),
        )?;
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let micros = (usage.user_time() + usage.system_time()).num_microseconds();
            let metric = encoder.encode_descriptor(
                "process_cpu_seconds",
                "User and system CPU time spent",
                None,
                MetricType::Counter,
            )?;
            ConstCounter::new(micros as f64 / 1e6).encode(metric)?;
        }
        // One entry is the descriptor of this very listing.
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            let open = entries.count().saturating_sub(1);
            gauge(encoder, "process_open_fds", "Open file descriptors", open as f64)?;
        }
        if let Ok(limits) = fs::read_to_string("/proc/self/limits")
            && let Some(max) = soft_limit(&limits, "Max open files")
        {
            gauge(
                encoder,
                "process_max_fds",
                "Limit of open file descriptors",
                max as f64,
            )?;
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(kib) = field(&status, "VmRSS") {
            let help = "Resident memory";
            gauge(
                encoder,
                "process_resident_memory_bytes",
                help,
                kib as f64 * 1024.0,
            )?;
        }
        if let Some(threads) = field(&status, "Threads") {
            gauge(encoder, "process_threads", "Threads", threads as f64)?;
        }
        Ok(())
    }
}

/// `VmRSS:   1234 kB`
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `Max open files            1024                 524288               files`
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        assert_eq!(field("VmPeak:\t 9 kB\nVmRSS:\t  1234 kB\n", "VmRSS"), Some(1234));
        assert_eq!(
            soft_limit("Max open files   1024   4096  files\n", "Max open files"),
            Some(1024)
        );
        assert_eq!(
            soft_limit("Max open files   unlimited  unlimited\n", "Max open files"),
            None
        );
    }
}
