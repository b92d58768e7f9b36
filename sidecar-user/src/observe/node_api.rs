//! The same answers as at the admin socket of a node's agent, over TLS and for whoever shows a bearer token: what that one may ask, the
//! role decides.

use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Request, Response, StatusCode};
use rustls::ServerConfig;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::Error;
use super::http::{self, Answer, Caller, Doors, Handler, not_allowed, text};
use super::node::{Asked, Reply, answered, asked};
use super::observer::Observer;
use super::tls_listener::TlsListener;

pub struct NodeApi {
    pub observer: Observer,
    /// Changes with the certificate. `None`: nobody is answered.
    pub tls: watch::Receiver<Option<Arc<ServerConfig>>>,
    pub answer: Box<AnswerCaller>,
}

/// Given within 20 s.
pub type AnswerCaller = dyn Fn(Bearer, Asked) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync;

/// What the caller shows. Its text is a secret.
pub struct Bearer(pub Zeroizing<String>);

const NO_TOKEN: &str = "\
show a bearer token that the API server of this cluster knows, as `Authorization: Bearer TOKEN`; kubectl outrigger does
";

/// Serves until dropped.
pub async fn serve_node_api(listener: TcpListener, api: NodeApi) -> Result<(), Error> {
    let listener = TlsListener::new(listener, api.tls.clone())?;
    let doors = Doors::private();
    api.observer.door("api", doors.waiting.clone());
    api.observer.door("api_answers", doors.answering.clone());
    let closing = api.observer.closing();
    http::serve(listener, Arc::new(api), doors, closing).await;
    Ok(())
}

impl Handler for NodeApi {
    async fn answer(&self, mut request: Request<Incoming>, _: Caller) -> Response<Answer> {
        let Some(bearer) = take_bearer(&mut request) else {
            return text(StatusCode::UNAUTHORIZED, NO_TOKEN);
        };
        match asked(&request) {
            Ok(Some(asked)) => answered((self.answer)(bearer, asked)).await,
            Err(methods) => not_allowed(methods),
            Ok(None) => text(
                StatusCode::NOT_FOUND,
                format!("no such path: {}\n", request.uri().path()),
            ),
        }
    }
}

fn take_bearer(request: &mut Request<Incoming>) -> Option<Bearer> {
    let value = request.headers_mut().remove(AUTHORIZATION)?;
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
        .then(|| Bearer(Zeroizing::new(token.to_owned())))
}
