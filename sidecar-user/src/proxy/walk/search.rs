//! Which endpoint of a destination is dialled next, and how long that goes on. Dials none itself, and knows no shard; `dial.rs`
//! does both.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::affinity::Affinities;
use super::super::outcome::{self, Answer};
use super::patience::Patience;
use crate::model::{Cause, OriginalDst, Outcome, Own, Party, ServiceName, Snapshot, Transport};
use crate::route::{Request, Route, Unknown, Upstream, route};
use crate::transport::Error;

/// wire.md 1.10: endpoints tried before giving up.
const ATTEMPTS: usize = 3;
/// While an application waits for endpoints that do not answer, they are tried in turn, no faster than this.
const PAUSE: Duration = Duration::from_secs(1);

/// Why there is no upstream: for the flow, and for the application.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    pub(super) outcome: Outcome,
    pub(super) answer: Answer,
}

/// Who asks: where it runs, and which endpoints it stays with.
#[derive(Clone, Copy)]
pub(super) struct Client<'c> {
    pub(super) own: &'c Own,
    pub(super) affinities: &'c Affinities,
}

/// The endpoints of one destination, tried one after the other.
pub(super) struct Search<'c> {
    client: Client<'c>,
    dst: OriginalDst,
    unknown: Unknown,
    /// connect() waits for the answer, for as long as the application likes.
    held: bool,
    world: Arc<Snapshot>,
    /// In this round.
    tried: Vec<SocketAddr>,
    /// Why `route` named nobody, the last time that it was asked.
    refused: Option<Cause>,
    /// The failure that the application will hear of.
    failed: Option<Failed>,
    patience: Patience,
}

impl<'c> Search<'c> {
    pub(super) fn new(
        client: Client<'c>,
        dst: OriginalDst,
        unknown: Unknown,
        held: bool,
        world: Arc<Snapshot>,
    ) -> Self {
        Self {
            client,
            dst,
            unknown,
            held,
            world,
            tried: Vec::new(),
            refused: None,
            failed: None,
            patience: Patience::default(),
        }
    }

    /// The endpoint to dial now. `None`: the round is over.
    pub(super) fn next(&mut self) -> Option<(Upstream, Transport)> {
        if self.tried.len() >= ATTEMPTS {
            return None;
        }
        match self.route() {
            Route::Mesh(up) => Some((up, Transport::Hbone)),
            Route::Direct(up) => Some((up, Transport::Plain)),
            Route::Refuse(refusal) => {
                let refused = outcome::of_refusal(refusal);
                self.refused = Some(refused.cause);
                self.failed.get_or_insert(Failed::refused(refused));
                None
            }
        }
    }

    fn route(&self) -> Route {
        let choose = |stays_with: Option<&str>| {
            let request = Request {
                dst: self.dst,
                unknown: self.unknown,
                tried: &self.tried,
                from: self.world.location_of(self.client.own),
                stays_with,
            };
            route(&self.world, &request, &mut |n| fastrand::usize(..n))
        };
        let service = self.world.service_at(self.dst.0).map(|(service, _)| service);
        let Some(service) = service.filter(|service| service.affinity.is_some()) else {
            return choose(None);
        };
        let affinities = self.client.affinities;
        affinities.choose(service, self.dst.0.port(), Instant::now(), |stays_with| {
            let route = choose(stays_with);
            let target = route.upstream().and_then(|up| up.target.as_ref());
            let chosen = target.map(|target| target.workload.clone());
            (route, chosen)
        })
    }

    /// Why `route` named nobody at all, where no endpoint has failed.
    pub(super) fn refusal(&self) -> Option<Cause> {
        self.refused.filter(|_| self.tried.is_empty())
    }

    /// The service that is dialled, also where none of its endpoints is.
    pub(super) fn service(&self) -> Option<ServiceName> {
        let (service, _) = self.world.service_at(self.dst.0)?;
        Some(service.name.clone())
    }

    /// The application still waits for what nobody knew when it asked.
    pub(super) fn introduced(&mut self, world: Arc<Snapshot>) {
        self.world = world;
    }

    /// Remembers a failure, and for how long nobody has listened where the endpoint's proxy should. An error: no other
    /// endpoint can help.
    pub(super) fn failed(
        &mut self,
        (up, transport): (&Upstream, Transport),
        error: &Error,
        absent_for: Option<Duration>,
    ) -> Result<(), Failed> {
        let now = Failed {
            outcome: outcome::of_error(error),
            answer: outcome::to_application(error),
        };
        if !outcome::is_endpoints_fault(now.outcome) {
            return Err(now);
        }
        self.tried.push(up.endpoint);
        if transport == Transport::Hbone {
            self.patience.failed(error, absent_for);
        }
        // Silence is no answer where another endpoint has given one.
        if self.failed.as_ref().is_none_or(Failed::is_silence) || !now.is_silence() {
            self.failed = Some(now);
        }
        Ok(())
    }

    /// Waits until the endpoints may be tried again, those of the world as it is then. An error: that is not worth while.
    pub(super) async fn another_round(&mut self, world: impl Fn() -> Arc<Snapshot>) -> Result<(), Failed> {
        if self.patience.lasts().await {
            (self.tried, self.failed, self.world) = (Vec::new(), None, world());
            return Ok(());
        }
        match self.failed {
            // Nobody has said no, and the application still waits.
            Some(failed) if self.held && failed.is_silence() => {
                self.tried.clear();
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
            Some(failed) => Err(failed),
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

    fn is_silence(&self) -> bool {
        self.outcome.cause == Cause::TimedOut
    }
}

#[cfg(test)]
mod tests;
