//! The small HTTP/1 server under both endpoints. It cannot be worn out from outside: connections are few, the
//! newcomer wins over whoever holds one without asking anything, and every wait has an end.
//!
//! Knows no path; a [`Handler`] answers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::stall::Stall;

/// More than probes, a scraper, some watchers and a few curious people hold at the same time.
const MAX_CONNECTIONS: usize = 64;
/// For the whole head of a request, and for a kept-alive connection between two of them.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a peer may read nothing of what it asked for.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// A request's head; beyond it the answer is 431.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// The only bodies taken are a line long.
const MAX_BODY: usize = 1024;
/// After an accept that failed (out of descriptors) the next attempt would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) trait Handler: Send + Sync + 'static {
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Answer>> + Send;
}

/// The two kinds of listener.
pub(super) trait Listen {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn accept(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// The body of a response: whole, or line by line as things happen.
pub(super) enum Answer {
    Whole(Option<Bytes>),
    Stream(Box<dyn Lines>),
}

pub(super) trait Lines: Send {
    /// The next piece, or the end.
    fn poll_lines(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;
}

/// Serves until it is dropped, and its connections with it.
pub(super) async fn serve(listener: impl Listen, handler: Arc<impl Handler>) {
    let mut tasks = JoinSet::new();
    let mut guests: VecDeque<Guest> = VecDeque::new();
    let mut failing = false;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let io = match accepted {
                    Ok(io) => io,
                    Err(error) => {
                        // Once, and not for as long as the shortage lasts.
                        if !mem::replace(&mut failing, true) {
                            tracing::warn!(%error, "the admin or status endpoint cannot accept");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                failing = false;
                make_room(&mut guests);
                let answering = Arc::new(AtomicBool::new(false));
                let abort = tasks.spawn(connection(io, handler.clone(), answering.clone()));
                guests.push_back(Guest { abort, answering });
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

struct Guest {
    abort: tokio::task::AbortHandle,
    answering: Arc<AtomicBool>,
}

/// Sends away the longest guest that asks nothing, else the longest of all.
fn make_room(guests: &mut VecDeque<Guest>) {
    guests.retain(|guest| !guest.abort.is_finished());
    if guests.len() < MAX_CONNECTIONS {
        return;
    }
    let idle = guests.iter().position(|guest| !guest.answering.load(Relaxed));
    if let Some(guest) = guests.remove(idle.unwrap_or(0)) {
        guest.abort.abort();
    }
}

async fn connection<S>(io: S, handler: Arc<impl Handler>, answering: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let (handler, answering) = (handler.clone(), answering.clone());
        async move {
            answering.store(true, Relaxed);
            let response = handler.answer(request).await;
            Ok::<_, Infallible>(response.map(|answer| Tracked { answer, answering }))
        }
    });
    let result = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(Stall::new(io, WRITE_PATIENCE)), service)
        .await;
    if let Err(error) = result {
        tracing::debug!(%error, "an admin or status connection ended badly");
    }
}

pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Response<Answer> {
    typed(status, "text/plain; charset=utf-8", body)
}

pub(super) fn json(body: &impl serde::Serialize) -> Response<Answer> {
    match serde_json::to_string(body) {
        Ok(body) => typed(StatusCode::OK, "application/json", body + "\n"),
        Err(error) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot write JSON: {error}\n"),
        ),
    }
}

pub(super) fn typed(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<String>,
) -> Response<Answer> {
    respond(
        status,
        content_type,
        Answer::Whole(Some(Bytes::from(body.into()))),
    )
}

pub(super) fn respond(status: StatusCode, content_type: &'static str, answer: Answer) -> Response<Answer> {
    let mut response = Response::new(answer);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// 405, with the methods that would do.
pub(super) fn not_allowed(allowed: &'static str) -> Response<Answer> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}\n"));
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// HEAD is a GET whose body hyper leaves out.
pub(super) fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The body of a request as a trimmed line; the error is the answer.
pub(super) async fn line(request: Request<Incoming>) -> Result<String, Box<Response<Answer>>> {
    let fail = |status, words: &str| Err(Box::new(text(status, format!("{words}\n"))));
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Err(_) => fail(StatusCode::REQUEST_TIMEOUT, "the body took longer than 5 s"),
        Ok(Err(_)) => fail(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is broken or longer than 1024 bytes",
        ),
        Ok(Ok(body)) => match std::str::from_utf8(&body.to_bytes()) {
            Ok(line) => Ok(line.trim().to_owned()),
            Err(_) => fail(StatusCode::BAD_REQUEST, "the body is not UTF-8"),
        },
    }
}

impl Listen for TcpListener {
    type Io = tokio::net::TcpStream;
    async fn accept(&self) -> io::Result<Self::Io> {
        Ok(TcpListener::accept(self).await?.0)
    }
}

impl Listen for UnixListener {
    type Io = tokio::net::UnixStream;
    async fn accept(&self) -> io::Result<Self::Io> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

/// A body that tells, when it is done with, that its connection answers no more.
struct Tracked {
    answer: Answer,
    answering: Arc<AtomicBool>,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.answering.store(false, Relaxed);
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut self.answer {
            Answer::Whole(bytes) => Poll::Ready(bytes.take()),
            Answer::Stream(lines) => lines.poll_lines(cx),
        };
        data.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.answer, Answer::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.answer {
            Answer::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Answer::Stream(_) => SizeHint::default(),
        }
    }
}
