//! Logging, and the signals that end a process. What is to be done at the end is each role's business.

mod files;

use std::io::{self, IsTerminal};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

pub use files::{file_limit, raise_file_limit};

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
    #[error("cannot wait for {name}")]
    Signal {
        name: &'static str,
        #[source]
        source: io::Error,
    },
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

/// Sends all events of the process to standard error. Colours only on a terminal.
pub fn start_logging(logging: &Logging) -> Result<LogFilter, Error> {
    let filter = EnvFilter::try_new(&logging.filter).map_err(|source| Error::Filter {
        filter: logging.filter.clone(),
        source,
    })?;
    let (filter, handle) = reload::Layer::new(filter);
    let output = fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match logging.format {
        Format::Text => registry
            .with(output.with_ansi(io::stderr().is_terminal()))
            .try_init(),
        Format::Json => registry.with(output.json().flatten_event(true)).try_init(),
    }
    .map_err(|source| Error::Twice {
        source: Box::new(source),
    })?;
    Ok(LogFilter(handle))
}

/// SIGTERM and SIGINT, caught from the moment this is made.
#[derive(Debug)]
pub struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Within a tokio runtime whose signal driver is enabled.
    pub fn catch() -> Result<Self, Error> {
        let catch = |kind, name| signal(kind).map_err(|source| Error::Signal { name, source });
        Ok(Self {
            terminate: catch(SignalKind::terminate(), "SIGTERM")?,
            interrupt: catch(SignalKind::interrupt(), "SIGINT")?,
        })
    }

    /// Waits for the next one and names it. Called again, it waits again: a second signal may mean "now".
    pub async fn requested(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: Format::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn a_signal_that_came_before_the_waiting_is_not_lost() {
        let mut shutdown = Shutdown::catch().unwrap();
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(shutdown.requested().await, "SIGTERM");
        raise(Signal::SIGINT).unwrap();
        assert_eq!(shutdown.requested().await, "SIGINT");
    }
}
