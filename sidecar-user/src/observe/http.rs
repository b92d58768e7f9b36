//! The small HTTP/1 server under both endpoints. It cannot be worn out from outside: whoever has asked nothing yet yields
//! to the newcomer, so does the slowest reader of an answer, each source has a quota of both, an answer is written piece
//! by piece, and every wait has an end. A connection carries one request, so that it never goes back to waiting.
//!
//! Knows no path; a [`Handler`] answers.

use std::io;
use std::mem;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
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
use tokio::sync::{SetOnce, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use super::renderer::Shared;
use crate::admission::{Admission, Guest, Limits};

/// For the whole head of a request: a probe or a scraper sends it with its first packet.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while more than half of the places of a door, or of the source's quota, are taken.
const HEADER_TIMEOUT_UNDER_PRESSURE: Duration = Duration::from_secs(2);
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a peer may read nothing of what it asked for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// A request's head; beyond it the answer is 431.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// The only bodies taken are a line long.
const MAX_BODY: usize = 1024;
/// Of an answer at a time: a connection holds one such piece and one in the socket's way.
pub const PIECE: usize = 64 * 1024;
/// After an accept that failed (out of descriptors) the next attempt would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Of one listener: who has asked nothing yet, and who is being answered.
#[derive(Clone, Debug)]
pub(super) struct Doors {
    pub waiting: Admission,
    pub answering: Admission,
}

impl Doors {
    /// Of a port that everybody reaches. A node's kubelet, its other probes and what the node masquerades are one
    /// source; 256 waiting connections take some 3 MB.
    pub(super) fn public() -> Self {
        Self::new((256, 32), (64, 16))
    }

    /// Where all come from this pod, and so from one source: people and their tools.
    pub(super) fn private() -> Self {
        Self::new((64, 64), (32, 32))
    }

    fn new(waiting: (usize, usize), answering: (usize, usize)) -> Self {
        let door = |(places, per_source)| {
            Admission::new(Limits {
                places,
                per_source,
                first_byte: HEADER_TIMEOUT,
                first_byte_under_pressure: HEADER_TIMEOUT_UNDER_PRESSURE,
            })
        };
        Self {
            waiting: door(waiting),
            answering: door(answering),
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Root or the user of this process, over the unix socket.
    Owner,
    Anyone,
}

pub(super) trait Handler: Send + Sync + 'static {
    fn answer(
        &self,
        request: Request<Incoming>,
        caller: Caller,
    ) -> impl Future<Output = Response<Answer>> + Send;
}

/// The two kinds of listener.
pub(super) trait Listen {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn accept(&self) -> impl Future<Output = io::Result<Arrived<Self::Io>>> + Send;
}

/// A connection that was accepted.
pub(super) struct Arrived<Io> {
    io: Io,
    /// `None` on a unix socket.
    source: Option<IpAddr>,
    caller: Caller,
}

impl<Io> Arrived<Io> {
    pub(super) fn new(io: Io, source: Option<IpAddr>, caller: Caller) -> Self {
        Self { io, source, caller }
    }
}

/// The body of a response.
pub(super) enum Answer {
    Whole(Option<Bytes>),
    /// A rendering that others read too, and how much of it is written.
    Shared(Shared, usize),
    /// Made as it is read.
    Stream(Box<dyn Pieces>),
}

/// Each about as long as [`PIECE`], or one event.
pub trait Pieces: Send {
    /// The next piece, or the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;
}

/// Ends a connection in the middle of its answer, so that its reader cannot take a part for the whole.
#[derive(Debug, thiserror::Error)]
#[error("the reader is so slow that its answer had to make room for newer ones")]
pub(super) struct TooSlow;

/// Serves until it is dropped, and its connections with it. Once `closing` says so nobody new is accepted: another process
/// does, from the same queue.
pub(super) async fn serve(
    listener: impl Listen,
    handler: Arc<impl Handler>,
    doors: Doors,
    mut closing: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let mut failing = false;
    let mut closed = false;
    loop {
        // The handler holds the observer, whose end says the same.
        let closes = async {
            let _ = closing.wait_for(|closed| *closed).await;
        };
        tokio::select! {
            biased;
            () = closes, if !closed => closed = true,
            accepted = listener.accept(), if !closed => match accepted {
                Ok(arrived) => {
                    failing = false;
                    let guest = doors.waiting.enter(arrived.source);
                    tasks.spawn(connection(arrived, guest, handler.clone(), doors.answering.clone()));
                }
                Err(error) => {
                    // Once, and not for as long as the shortage lasts.
                    if !mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "the admin or status endpoint cannot accept");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = tasks.join_next() => {}
            else => std::future::pending().await,
        }
    }
}

/// The places of one connection: at the door, and then among those that are answered.
struct Places {
    waiting: Guest,
    answering: SetOnce<Guest>,
}

impl Places {
    async fn evicted(&self) {
        tokio::select! {
            () = self.waiting.evicted() => {}
            () = async { self.answering.wait().await.evicted().await } => {}
        }
    }
}

async fn connection<S>(arrived: Arrived<S>, waiting: Guest, handler: Arc<impl Handler>, answering: Admission)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Arrived { io, source, caller } = arrived;
    let head_timeout = waiting.first_byte_limit();
    let places = Places {
        waiting,
        answering: SetOnce::new(),
    };
    let service = service_fn(|request| {
        // Where it was evicted at this moment it still takes a place, and is dropped with the next poll.
        places.waiting.proved();
        let _ = places.answering.set(answering.enter(source));
        let answer = handler.answer(request, caller);
        async { Ok::<_, TooSlow>(answer.await) }
    });
    let mut io = TimeoutStream::new(io);
    io.set_write_timeout(Some(WRITE_TIMEOUT));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(Box::pin(io)), service);
    tokio::select! {
        biased;
        () = places.evicted() => {}
        result = served => if let Err(error) = result {
            tracing::debug!(%error, "an admin or status connection ended badly");
        },
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
    async fn accept(&self) -> io::Result<Arrived<Self::Io>> {
        let (io, peer) = TcpListener::accept(self).await?;
        Ok(Arrived {
            io,
            source: Some(peer.ip()),
            caller: Caller::Anyone,
        })
    }
}

impl Listen for UnixListener {
    type Io = tokio::net::UnixStream;
    async fn accept(&self) -> io::Result<Arrived<Self::Io>> {
        let (io, _) = UnixListener::accept(self).await?;
        // SO_PEERCRED: who has connected, whatever became of the file's mode, and whoever holds the descriptor now.
        let caller = match io.peer_cred() {
            Ok(peer) => Caller::of(peer.uid(), nix::unistd::geteuid().as_raw()),
            Err(_) => Caller::Anyone,
        };
        Ok(Arrived {
            io,
            source: None,
            caller,
        })
    }
}

impl Caller {
    fn of(peer: u32, own: u32) -> Self {
        if peer == 0 || peer == own {
            Self::Owner
        } else {
            Self::Anyone
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = TooSlow;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TooSlow>>> {
        let piece = match &mut *self {
            Self::Whole(bytes) => Poll::Ready(Ok(bytes.take())),
            Self::Shared(shared, written) => Poll::Ready(shared.piece(written)),
            Self::Stream(pieces) => pieces.poll_piece(cx).map(Ok),
        };
        piece.map(|piece| piece.transpose().map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Shared(shared, written) => *written == shared.len,
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Shared(shared, written) => SizeHint::with_exact((shared.len - written) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

impl Shared {
    /// Copied, so that a reader who stops keeps a piece alive and not the whole.
    fn piece(&self, written: &mut usize) -> Result<Option<Bytes>, TooSlow> {
        if *written == self.len {
            return Ok(None);
        }
        let text = self.text.upgrade().ok_or(TooSlow)?;
        let piece = &text.as_bytes()[*written..self.len.min(*written + PIECE)];
        *written += piece.len();
        Ok(Some(Bytes::copy_from_slice(piece)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Caller, PIECE, Shared};

    #[test]
    fn a_shared_answer_is_whole_or_broken_off() {
        let text = Arc::new("x".repeat(PIECE + 5));
        let shared = Shared {
            text: Arc::downgrade(&text),
            len: text.len(),
        };
        let (mut fast, mut slow) = (0, 0);
        for len in [PIECE, 5] {
            assert_eq!(shared.piece(&mut fast).unwrap().unwrap().len(), len);
        }
        assert_eq!(shared.piece(&mut fast).unwrap(), None);
        shared.piece(&mut slow).unwrap();
        drop(text);
        assert!(shared.piece(&mut slow).is_err(), "it had to make room");
    }

    #[test]
    fn root_and_the_own_user_are_the_owner() {
        assert_eq!(Caller::of(0, 1337), Caller::Owner);
        assert_eq!(Caller::of(1337, 1337), Caller::Owner);
        assert_eq!(Caller::of(1000, 1337), Caller::Anyone);
        assert_eq!(Caller::of(65534, 0), Caller::Anyone);
    }
}
