//! Whom workloads are to trust, for those who publish it.

use std::sync::Arc;

use super::kept::Kept;
use crate::issuer::Service;

pub(super) struct Roots {
    service: Arc<Service>,
    /// `None`: a state directory of this process alone has them.
    kept: Option<Kept>,
}

/// What the one other place than the ConfigMap holds where roots are published: the ClusterTrustBundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    Unknown,
    /// There is no such place here.
    Nowhere,
    Holds(String),
}

impl Roots {
    pub(super) fn new(service: Arc<Service>, kept: Option<Kept>) -> Arc<Self> {
        Arc::new(Self { service, kept })
    }

    pub(super) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// As they are at this moment, and not as this replica has heard last: one that hears late must not bring back the roots of
    /// before. Where the Secret is gone, those that were read last stay in force. An error is words for a message.
    pub(super) async fn now(&self) -> Result<String, String> {
        let kept = match &self.kept {
            Some(kept) => kept.roots(&self.service).await?,
            None => None,
        };
        Ok(kept.unwrap_or_else(|| self.service.store().current().bundle().to_owned()))
    }
}

impl Elsewhere {
    pub(super) fn holds(&self, roots: &str) -> bool {
        match self {
            Self::Unknown => false,
            Self::Nowhere => true,
            Self::Holds(held) => held == roots,
        }
    }
}
