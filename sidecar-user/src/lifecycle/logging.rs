//! The process's log: its level, its format, and the layers that an event passes. Where lines wait is `writer.rs`.

use std::io::{self, IsTerminal};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use super::gate::{Gate, GateLayer};
use super::panics;
use super::writer::{self, Queue};

/// How the process logs, to standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// A level, or levels by module: `info,outrigger::discovery=debug`.
    pub filter: String,
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    /// One object a line.
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the log filter `{filter}` cannot be read; write a level such as info")]
    Filter {
        filter: String,
        #[source]
        source: ParseError,
    },
    #[error("logging is set up already; a process does it once")]
    Twice {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot start the thread that writes the log")]
    Thread {
        #[source]
        source: io::Error,
    },
    #[error("cannot wait for {name}")]
    Signal {
        name: &'static str,
        #[source]
        source: io::Error,
    },
}

/// The process's, as tracing's dispatcher is.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    queue: Arc<Queue>,
    gate: Arc<Gate>,
}

/// The log's filter, readable and changeable while the process runs.
#[derive(Clone, Debug)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    pub fn get(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }

    /// An error is a sentence for whoever asked.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let parsed = EnvFilter::try_new(filter).map_err(|e| {
            format!("the log filter `{filter}` cannot be read ({e}); write a level such as info")
        })?;
        self.0.reload(parsed).map_err(|e| e.to_string())
    }
}

/// Sends all events of the process to standard error, and panics with them. Colours only on a terminal.
pub fn start_logging(logging: &Logging) -> Result<LogFilter, Error> {
    let filter = EnvFilter::try_new(&logging.filter).map_err(|source| Error::Filter {
        filter: logging.filter.clone(),
        source,
    })?;
    let (filter, handle) = reload::Layer::new(filter);
    let (queue, gate) = (Arc::new(Queue::default()), Arc::new(Gate::default()));
    let lines = queue.clone();
    let output = fmt::layer()
        .with_writer(move || writer::Line(lines.clone()))
        // It would report a field that cannot be formatted by a blocking write of its own.
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(GateLayer(gate.clone()));
    match logging.format {
        Format::Text => registry
            .with(output.with_ansi(io::stderr().is_terminal()))
            .try_init(),
        Format::Json => registry.with(output.json().flatten_event(true)).try_init(),
    }
    .map_err(|source| Error::Twice {
        source: Box::new(source),
    })?;
    writer::start(queue.clone(), gate.clone(), io::stderr()).map_err(|source| Error::Thread { source })?;
    let reports = queue.clone();
    panics::install(move |report| reports.report(report));
    // Nobody else can have set it: tracing's own place was free until now.
    let _ = LOG.set(Log { queue, gate });
    Ok(LogFilter(handle))
}

/// A line for standard error, from a process that may have a log by now: then after all that went before.
pub(super) fn say(line: &str) {
    match LOG.get() {
        Some(log) => log.queue.push(format!("{line}\n").as_bytes()),
        None => eprintln!("{line}"),
    }
}

/// Has the last lines written, as far as their reader takes them in time.
pub(super) fn finish(patience: Duration) {
    if let Some(log) = LOG.get() {
        log.queue.finish(patience);
    }
}

/// Lines that were lost because nobody read the log fast enough, or it could not be written.
pub(super) fn lines_dropped() -> u64 {
    LOG.get().map_or(0, |log| log.queue.dropped())
}

/// Lines that the gate left out of bursts.
pub(super) fn lines_suppressed() -> u64 {
    LOG.get().map_or(0, |log| log.gate.suppressed())
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: Format::Text,
        }
    }
}
