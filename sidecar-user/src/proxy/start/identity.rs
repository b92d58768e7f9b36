//! The proxy's own certificate, from before it takes a pod over until it ends. Where certificates come from is the room
//! `identity`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use crate::identity::{self, Svid};

/// The certificate, and what keeps it current for as long as that is polled.
pub(super) struct Identity {
    pub(super) kept: Pin<Box<dyn Future<Output = Result<Infallible, identity::Error>>>>,
    pub(super) svid: watch::Receiver<Option<Arc<Svid>>>,
    pub(super) status: watch::Receiver<identity::Status>,
}

impl Identity {
    pub(super) fn new(config: identity::Config, way: identity::Way) -> Self {
        let (publish, svid) = watch::channel(None);
        let (tell, status) = watch::channel(identity::Status::default());
        Self {
            kept: Box::pin(identity::keep(config, way, publish, tell)),
            svid,
            status,
        }
    }
}
