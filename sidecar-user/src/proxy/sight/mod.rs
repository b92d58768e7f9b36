//! What this proxy says of itself: who it is, whom it could dial, whom it lets in. By the same values and the same pure functions as
//! the walks. Opens nothing and changes nothing.

mod endpoints;
mod own_identity;
mod policies;

use std::sync::Arc;

use tokio::sync::watch;

use super::affinity::Affinities;
use super::config::{self, Config};
use crate::discovery::Feed;
use crate::identity::{self, Svid};
use crate::observe::Sight;
use endpoints::Endpoints;
use own_identity::OwnIdentity;
use policies::Policies;

pub(super) fn sight(
    config: &Config,
    (svid, status): (
        watch::Receiver<Option<Arc<Svid>>>,
        watch::Receiver<identity::Status>,
    ),
    feed: &Feed,
    affinities: Arc<Affinities>,
) -> Sight {
    let own = config::own(config);
    let identity = OwnIdentity {
        config: config.identity.clone(),
        svid,
        status,
    };
    let endpoints = Endpoints {
        own: own.clone(),
        unknown: config.unknown,
        feed: feed.clone(),
        affinities,
    };
    let policies = Policies {
        own,
        mode: config.mode,
        feed: feed.clone(),
    };
    Sight {
        identity: Box::new(move |caller| identity.report(caller)),
        endpoints: Box::new(move |question| endpoints.list(question)),
        policies: Box::new(move |question| policies.report(question)),
    }
}
