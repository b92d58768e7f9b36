//! What the certificate service knows: the authority, whose tokens are good, and the places at its door. Serves nobody itself.

use std::sync::Arc;

use super::judge::{Judge, Review};
use super::visit::{Door, Limits};
use super::{Config, Counts, Error, Store, Tokens};
use crate::admission;

/// The service's state, which whoever shows its figures shares.
pub struct Service {
    pub(super) store: Arc<Store>,
    pub(super) judge: Judge,
    pub(super) door: Arc<Door>,
}

impl Service {
    /// Opens the state directory, or makes it. `descriptors` is how many this process may have.
    pub fn open(config: &Config, descriptors: usize) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            store: Arc::new(Store::open(config)?),
            judge: Judge::Listed(Tokens::open(&config.state_dir)?),
            door: Door::new(Limits::for_descriptors(descriptors)),
        }))
    }

    /// Without a state directory: somebody else keeps the authority, and says whom a token stands for.
    pub fn reviewed(store: Store, review: Review, descriptors: usize) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::new(store),
            judge: Judge::Reviewed(review),
            door: Door::new(Limits::for_descriptors(descriptors)),
        })
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// `None`: there is no list of them.
    pub fn tokens(&self) -> Option<&Tokens> {
        match &self.judge {
            Judge::Listed(tokens) => Some(tokens),
            Judge::Reviewed(_) => None,
        }
    }

    pub fn counts(&self) -> Counts {
        self.door.stats.counts()
    }

    /// Connections that have proved nothing yet.
    pub fn waiting(&self) -> admission::Counts {
        self.door.admission.counts()
    }

    /// Connections that have proved an identity.
    pub fn authenticated(&self) -> usize {
        self.door.tenants.len()
    }
}
