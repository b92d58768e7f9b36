//! The programs' own log lines, from their ring buffer to tracing.

use std::io;

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::super::sys;

/// The tracing target of the programs' messages. Below debug level the programs are loaded without them.
pub(super) const TARGET: &str = "outrigger::kernel";

/// Reads the programs' log for as long as it is polled.
pub struct Logs(EbpfLogger<ToTracing>);

pub(super) fn enabled() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

impl Logs {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, aya_log::Error> {
        EbpfLogger::init_with_logger(ebpf, ToTracing).map(Self)
    }

    /// Runs until the first error of the runtime's driver. Needs a tokio runtime with io enabled.
    pub async fn run(self) -> io::Result<()> {
        let mut logs = sys::watch(self.0)?;
        loop {
            let mut ready = logs.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let program = record.target();
        let message = record.args();
        match record.level() {
            log::Level::Error => tracing::error!(target: TARGET, program, "{message}"),
            log::Level::Warn => tracing::warn!(target: TARGET, program, "{message}"),
            log::Level::Info => tracing::info!(target: TARGET, program, "{message}"),
            log::Level::Debug => tracing::debug!(target: TARGET, program, "{message}"),
            log::Level::Trace => tracing::trace!(target: TARGET, program, "{message}"),
        }
    }

    fn flush(&self) {}
}
