//! The signals that end a process. Decides nothing about its end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Error;

/// SIGTERM and SIGINT, caught from the moment this is made.
#[derive(Debug)]
pub struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Within a tokio runtime whose signal driver is enabled.
    pub fn catch() -> Result<Self, Error> {
        let caught =
            |signal: io::Result<Signal>, name| signal.map_err(|source| Error::Signal { name, source });
        Ok(Self {
            terminate: caught(signal(SignalKind::terminate()), "SIGTERM")?,
            interrupt: caught(signal(SignalKind::interrupt()), "SIGINT")?,
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
