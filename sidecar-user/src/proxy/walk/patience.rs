//! How long a connection waits for a proxy that is not there, or not yet. Dials nobody.
//!
//! A proxy that is stopped and started leaves a gap in which the kernel refuses connections to its HBONE port. That says
//! nothing of the application behind it, so the client's proxy asks again for as long as a restart may take.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::transport::Error;

/// What a stop and a start take, with time to spare. A gateway that has been absent for longer is not waited for.
const RESTART: Duration = Duration::from_secs(5);
/// Between two rounds of dials; those of a shard that wait for the same peer share them.
const AGAIN: Duration = Duration::from_millis(50);

/// What a proxy that has just started takes to get its first certificate, with time to spare.
const FIRST: Duration = Duration::from_secs(2);

/// Waits for the first certificate, where there was none yet.
pub(super) async fn first<T>(mut svid: watch::Receiver<Option<T>>) {
    let _ = tokio::time::timeout(FIRST, svid.wait_for(Option::is_some)).await;
}

/// Of one connection.
#[derive(Debug, Default)]
pub(super) struct Patience {
    began: Option<Instant>,
    /// An endpoint of this round may come back.
    returning: bool,
}

impl Patience {
    /// A dial to a mesh endpoint has failed, whose gateway has been absent for so long.
    pub(super) fn failed(&mut self, error: &Error, absent_for: Option<Duration>) {
        if error.is_absence() {
            let began = *self.began.get_or_insert_with(Instant::now);
            let waited = began.elapsed().max(absent_for.unwrap_or_default());
            self.returning |= waited < RESTART;
        }
    }

    /// Is another round worth while? Asked when each endpoint has failed, and answered when the round may begin.
    pub(super) async fn lasts(&mut self) -> bool {
        let lasts = std::mem::take(&mut self.returning);
        if lasts {
            tokio::time::sleep(AGAIN).await;
        }
        lasts
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::rc::Rc;

    use super::*;

    fn refused() -> Error {
        Error::Connect {
            addr: "10.0.0.1:15008".parse().unwrap(),
            source: Rc::new(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    fn denied() -> Error {
        Error::Refused {
            addr: "10.0.0.1:15008".parse().unwrap(),
            status: 503,
            refusal: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_absent_proxy_is_waited_for_as_long_as_a_restart_takes() {
        let mut patience = Patience::default();
        let mut rounds = 0;
        loop {
            patience.failed(&refused(), None);
            if !patience.lasts().await {
                break;
            }
            rounds += 1;
        }
        assert_eq!(rounds, RESTART.as_millis() / AGAIN.as_millis());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_been_absent_for_longer_is_not() {
        let mut patience = Patience::default();
        patience.failed(&refused(), Some(RESTART));
        assert!(!patience.lasts().await);
    }

    #[tokio::test]
    async fn an_application_that_refuses_is_not() {
        let mut patience = Patience::default();
        patience.failed(&denied(), None);
        assert!(!patience.lasts().await);
    }
}
