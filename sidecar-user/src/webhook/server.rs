//! HTTPS for the API server: one path, one method. Whoever proves nothing, and nobody can, yields to the newcomer; every wait has an end
//! and every body a limit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::counts::Counts;
use crate::admission::{Admission, Guest, Limits};
use crate::inject::{Profile, review};

const PATH: &str = "/inject";
/// An object is 1.5 MiB at most where etcd keeps it, and a review holds one.
const MAX_BODY: usize = 4 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The API server keeps a connection that is idle for 90 s.
const IDLE: Duration = Duration::from_secs(120);
/// After an accept that failed (out of descriptors) the next attempt would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A few API servers, each with some connections.
const LIMITS: Limits = Limits {
    places: 128,
    per_source: 32,
    first_byte: Duration::from_secs(5),
    first_byte_under_pressure: Duration::from_secs(2),
};

/// Serves until it is dropped, and its connections with it.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    profile: Arc<Profile>,
    counts: Arc<Counts>,
) {
    let (door, acceptor) = (Admission::new(LIMITS), TlsAcceptor::from(tls));
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let guest = door.enter(Some(peer.ip()));
                    tasks.spawn(connection(stream, guest, acceptor.clone(), profile.clone(), counts.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the webhook cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn connection(
    stream: TcpStream,
    guest: Guest,
    acceptor: TlsAcceptor,
    profile: Arc<Profile>,
    counts: Arc<Counts>,
) {
    let service = service_fn(|request| {
        let (profile, counts) = (profile.clone(), counts.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(request, &profile, &counts).await) }
    });
    let served = async {
        let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake with the webhook failed");
                return;
            }
            Err(_) => return,
        };
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = served.await {
            tracing::debug!(%error, "a connection to the webhook ended badly");
        }
    };
    tokio::select! {
        biased;
        () = guest.evicted() => {}
        () = served => {}
    }
}

async fn answer(request: Request<Incoming>, profile: &Profile, counts: &Counts) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return said(StatusCode::NOT_FOUND, "the webhook is at /inject\n");
    }
    if *request.method() != Method::POST {
        return said(StatusCode::METHOD_NOT_ALLOWED, "use POST\n");
    }
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    let body = match timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            return said(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is broken or longer than 4 MiB\n",
            );
        }
        Err(_) => return said(StatusCode::REQUEST_TIMEOUT, "the body took longer than 5 s\n"),
    };
    match review(&body, profile) {
        Ok(answer) => {
            counts.count(answer.result);
            let mut response = said(StatusCode::OK, &answer.review.to_string());
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => {
            counts.count("bad");
            said(StatusCode::BAD_REQUEST, &format!("{error}\n"))
        }
    }
}

fn said(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = status;
    response
}
