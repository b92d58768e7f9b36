//! A shard of a proxy that another one has replaced: when nobody can come to it any more.

use std::time::Duration;

use super::super::stop::{self, Phase};
use super::Shard;

/// How often a look is taken whether somebody is still held.
const LOOK: Duration = Duration::from_millis(50);

impl Shard {
    /// Another proxy serves the pod: whoever is not served here is there.
    pub(in super::super) fn is_replaced(&self) -> bool {
        *self.replaced.borrow()
    }

    /// Completes when no connection can come to the outbound listener any more, because another proxy has the pod and nobody
    /// is held here.
    pub(super) async fn left_behind(&self) {
        if !self.is_replaced() {
            return std::future::pending().await;
        }
        while self.holding.as_ref().is_some_and(|holding| !holding.is_empty()) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Completes when no flow is open, or those that are have to be cut.
    pub(super) async fn ended(&self) {
        tokio::select! {
            () = self.open.none_left() => {}
            () = stop::reached(&self.phase, Phase::Cut) => {}
        }
    }
}
