//! Nobody reaches a service behind the certificate service's door without a token: each request's caller is known before it gets
//! there, and stands in its extensions as [`crate::model::Caller`]. Which services those are, `control/` says.

use std::sync::Arc;
use std::time::SystemTime;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tower::Layer;
use tracing::{debug, warn};

use super::judge::Credentials;
use super::listener::Peer;
use super::service::Service;
use crate::grpc::{Answering, Answers};

/// Puts [`Guarded`] before all routes.
#[derive(Clone)]
pub(super) struct Guard {
    service: Arc<Service>,
    /// The path of a call that judges by itself, and says itself what it counts and logs of whom it refuses.
    but: &'static str,
}

#[derive(Clone)]
pub(super) struct Guarded {
    guard: Guard,
    routes: Routes,
}

impl Guard {
    pub(super) fn new(service: Arc<Service>, but: &'static str) -> Self {
        Self { service, but }
    }
}

impl Layer<Routes> for Guard {
    type Service = Answering<Guarded>;

    fn layer(&self, routes: Routes) -> Self::Service {
        Answering(Guarded {
            guard: self.clone(),
            routes,
        })
    }
}

impl Answers for Guarded {
    async fn answer(mut self, mut request: http::Request<Body>) -> http::Response<Body> {
        if request.uri().path() != self.guard.but
            && let Err(status) = admit(&self.guard.service, &mut request).await
        {
            return status.into_http();
        }
        match self.routes.call(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }
}

async fn admit(service: &Service, request: &mut http::Request<Body>) -> Result<(), Status> {
    let peer = request.extensions().get::<Peer>().cloned();
    let metadata = MetadataMap::from_headers(request.headers().clone());
    let address = peer.as_ref().map(Peer::address);
    let proved = match Credentials::read(&metadata, address.map(|address| address.ip())) {
        Ok(credentials) => service.judge.judge(credentials, SystemTime::now()).await,
        Err(doubt) => Err(doubt),
    };
    let proved = proved.map_err(|doubt| {
        service.door.stats.refused(doubt.why);
        let peer = address.map(tracing::field::display);
        match doubt.why.is_anyones() {
            // Anyone can send these, so they must not fill the log.
            true => debug!(peer, reason = doubt.message, "a request was refused"),
            false => warn!(peer, reason = doubt.message, "a request was refused"),
        }
        doubt.status()
    })?;
    if let Some(Peer(visit)) = &peer {
        visit.prove(&proved.place());
    }
    request.extensions_mut().insert(proved.caller);
    Ok(())
}

#[cfg(test)]
mod tests;
