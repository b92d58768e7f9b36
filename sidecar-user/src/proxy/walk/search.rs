//! Which endpoint of a destination is dialled next, and how long that goes on. Dials none itself; `dial.rs` does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::outcome::{self, Answer};
use super::super::shard::context::Shard;
use super::patience::Patience;
use crate::model::{Cause, OriginalDst, Outcome, Party, Snapshot, Transport};
use crate::route::{Route, Upstream, route};
use crate::transport::Error;

/// wire.md 1.10: endpoints tried before giving up.
const ATTEMPTS: usize = 3;
/// While an application waits for endpoints that do not answer, they are tried in turn, no faster than this.
const PAUSE: Duration = Duration::from_secs(1);

/// Who wants an upstream, to what.
pub(super) struct DialRequest {
    pub(super) dst: OriginalDst,
    /// The application's address as others see it.
    pub(super) client: SocketAddr,
    /// The kernel would choose that address by itself.
    pub(super) is_routed: bool,
    pub(super) device: Option<u32>,
    /// connect() waits for the answer, for as long as the application likes.
    pub(super) held: bool,
}

/// Why there is no upstream: for the flow, and for the application.
#[derive(Clone, Copy)]
pub(super) struct Failed {
    pub(super) outcome: Outcome,
    pub(super) answer: Answer,
}

/// The endpoints of one destination, tried one after the other.
pub(super) struct Search {
    pub(super) world: Arc<Snapshot>,
    /// In this round.
    tried: Vec<SocketAddr>,
    /// The failure that the application will hear of.
    failed: Option<Failed>,
    patience: Patience,
}

impl Search {
    pub(super) fn new(world: Arc<Snapshot>) -> Self {
        Self {
            world,
            tried: Vec::new(),
            failed: None,
            patience: Patience::default(),
        }
    }

    /// The endpoint to dial now. `None`: the round is over.
    pub(super) fn next(&mut self, shard: &Shard, asked: &DialRequest) -> Option<(Upstream, Transport)> {
        if self.tried.len() >= ATTEMPTS {
            return None;
        }
        let random = &mut |n| fastrand::usize(..n);
        match route(&self.world, shard.unknown, asked.dst, &self.tried, random) {
            Route::Mesh(up) => Some((up, Transport::Hbone)),
            Route::Direct(up) => Some((up, Transport::Plain)),
            Route::Refuse(refusal) => {
                self.failed
                    .get_or_insert(Failed::refused(outcome::of_refusal(refusal)));
                None
            }
        }
    }

    /// Remembers a failure. An error: no other endpoint can help.
    pub(super) fn failed(
        &mut self,
        shard: &Shard,
        asked: &DialRequest,
        (up, transport): (&Upstream, Transport),
        error: &Error,
    ) -> Result<(), Failed> {
        match outcome::lacking(error) {
            Some(what) => shard.limited.report(what),
            None => outcome::log(error, (asked.client, asked.dst), up.endpoint),
        }
        let now = Failed {
            outcome: outcome::of_error(error),
            answer: outcome::to_application(error),
        };
        if !outcome::is_endpoints_fault(now.outcome) {
            return Err(now);
        }
        self.tried.push(up.endpoint);
        if transport == Transport::Hbone {
            let absent_for = shard.pool.absent_for(shard.gateway(up));
            self.patience.failed(error, absent_for);
        }
        // Silence is no answer where another endpoint has given one.
        let is_silent = |failed: &Failed| failed.outcome.cause == Cause::TimedOut;
        if self.failed.as_ref().is_none_or(is_silent) || !is_silent(&now) {
            self.failed = Some(now);
        }
        Ok(())
    }

    /// Waits until all endpoints may be tried again. An error: that is not worth while.
    pub(super) async fn another_round(&mut self, shard: &Shard, asked: &DialRequest) -> Result<(), Failed> {
        if self.patience.lasts().await {
            (self.tried, self.failed, self.world) = (Vec::new(), None, shard.world());
            return Ok(());
        }
        match &self.failed {
            // Nobody has said no, and the application still waits.
            Some(failed) if asked.held && failed.outcome.cause == Cause::TimedOut => {
                self.tried.clear();
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
            Some(failed) => Err(*failed),
            None => Err(Failed::refused(Outcome::new(Party::Us, Cause::NoEndpoint))),
        }
    }
}

impl Failed {
    pub(super) fn refused(outcome: Outcome) -> Self {
        Self {
            outcome,
            answer: Answer::Refused,
        }
    }
}
