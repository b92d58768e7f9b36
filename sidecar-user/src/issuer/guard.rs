//! Nobody reaches a service behind the certificate service's door without a token: each request's caller is known before it gets
//! there, and stands in its extensions as [`crate::model::Caller`]. Which services those are, `control/` says.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service as Answers, http};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tower::Layer;
use tracing::{debug, warn};

use super::judge::Credentials;
use super::listener::Peer;
use super::service::Service;

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
    type Service = Guarded;

    fn layer(&self, routes: Routes) -> Guarded {
        Guarded {
            guard: self.clone(),
            routes,
        }
    }
}

impl Answers<http::Request<Body>> for Guarded {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (guard, mut routes) = (self.guard.clone(), self.routes.clone());
        Box::pin(async move {
            if request.uri().path() != guard.but
                && let Err(status) = admit(&guard.service, &mut request).await
            {
                return Ok(status.into_http());
            }
            routes.call(request).await
        })
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
