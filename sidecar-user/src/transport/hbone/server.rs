//! The accepting side of a tunnel. Says who is there and what is asked for; whether it may be is policy's question.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{PingPong, Reason, RecvStream};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::frames::PREFACE;
use super::socket::{Heard, Socket};
use super::stream::{Occupancy, Place};
use super::traffic::{Tracked, Traffic};
use super::{
    CONNECTION_WINDOW, DATA_FRAME_BUDGET, ERROR_RESETS, Flood, Forwarded, MAX_FRAME, MAX_HEADER_LIST,
    MAX_STREAMS, PENDING_RESETS, Refusal, SEND_BUFFER, STREAM_WINDOW, Stream, headers, keepalive,
};
use crate::budget::Budget;
use crate::transport::tls::{self, Peer};
use crate::transport::{Counted, Error, Step, Tally, Timeouts, tcp};

/// A proven client with its tunnel.
pub struct Session<S = TlsStream<TcpStream>> {
    pub peer: Peer,
    pub handshake: Duration,
    connection: Connection<Socket<S>, Bytes>,
    heard: Heard,
    traffic: Traffic,
    occupancy: Rc<Occupancy>,
}

/// A CONNECT that waits for its answer. Dropped without one, the stream is reset.
pub struct Incoming {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    place: Place,
    tracked: Tracked,
}

/// How many streams a tunnel carries now.
#[derive(Clone, Debug)]
pub struct Streams(Rc<Occupancy>);

impl Streams {
    pub fn open(&self) -> usize {
        self.0.streams.get()
    }

    #[cfg(test)]
    pub fn for_tests(open: usize) -> Self {
        let occupancy = Occupancy::default();
        occupancy.streams.set(open);
        Self(Rc::new(occupancy))
    }
}

/// Why a tunnel did not end in peace.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("the tunnel broke")]
    Broken(#[source] h2::Error),
    #[error("the peer floods the tunnel: {0:?}")]
    Flood(Flood),
}

/// How long a tunnel without streams stays open after its client was told to open no more: longer than the answer takes
/// that HTTP/2 waits for before it says so a second time (RFC 9113, section 6.8).
const LINGER: Duration = Duration::from_secs(5);

/// How long a peer that floods may take to be told why its tunnel ends.
const FAREWELL: Duration = Duration::from_secs(1);

impl Session {
    /// Both handshakes, each within its limit.
    pub async fn accept(
        tcp: TcpStream,
        client: SocketAddr,
        config: Arc<ServerConfig>,
        limits: Timeouts,
        budget: &Budget,
    ) -> Result<Self, Error> {
        let start = Instant::now();
        let failed = |e| Error::Tls {
            addr: client,
            source: Rc::new(e),
        };
        tcp::tune_tunnel(&tcp).map_err(failed)?;
        let tls = tokio::time::timeout(limits.tls, TlsAcceptor::from(config).accept(tcp))
            .await
            .map_err(|_| Error::TimedOut {
                addr: client,
                what: Step::TlsHandshake,
                after: limits.tls,
            })?
            .map_err(failed)?;
        let peer = tls::peer(tls.get_ref().1, tls::Side::Client, true)
            .ok_or_else(|| failed(std::io::Error::other("the client proved no identity")))?;
        let handshake = start.elapsed();
        let fd = tls.get_ref().0.as_raw_fd();
        let session = Self::over(tls, client, (peer, handshake), limits, budget).await?;
        session.traffic.socket().open(fd);
        Ok(session)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// The HTTP/2 handshake, over what a peer has proved to be its own.
    async fn over(
        io: S,
        client: SocketAddr,
        (peer, handshake): (Peer, Duration),
        limits: Timeouts,
        budget: &Budget,
    ) -> Result<Self, Error> {
        let traffic = Traffic::new(budget, (PREFACE, 0), Instant::now());
        let (io, heard) = Socket::new(io, traffic.clone());
        let preface = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(Some(ERROR_RESETS))
            .max_send_buffer_size(SEND_BUFFER)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .handshake(io);
        let connection = tokio::time::timeout(limits.settings, preface)
            .await
            .map_err(|_| Error::TimedOut {
                addr: client,
                what: Step::Http2Preface,
                after: limits.settings,
            })?
            .map_err(|e| Error::Http2 {
                addr: client,
                source: Rc::new(e),
            })?;
        Ok(Self {
            peer,
            handshake,
            connection,
            heard,
            traffic,
            occupancy: Rc::default(),
        })
    }

    /// Counts the streams that are open.
    pub fn streams(&self) -> Streams {
        Streams(self.occupancy.clone())
    }

    /// Drives the tunnel to its end and hands every CONNECT to `on_request`. When `drain` completes, the client is
    /// told to open its next streams elsewhere (GOAWAY); those that are open run on.
    pub async fn serve(
        mut self,
        drain: impl Future<Output = ()> + 'static,
        tally: &Tally,
        mut on_request: impl FnMut(Incoming),
    ) -> Result<(), Ended> {
        let _counted = Counted::new(tally);
        let orders = Rc::new(Orders::default());
        let _steering = Steering::begin(
            orders.clone(),
            drain,
            self.connection.ping_pong(),
            self.heard.clone(),
            self.streams(),
        );
        let mut draining = false;
        loop {
            let next = poll_fn(|cx| {
                orders.wake_by(cx);
                if orders.dead.get() || (orders.drain.get() && !draining) {
                    return Poll::Ready(None);
                }
                let accepted = self.connection.poll_accept(cx);
                if accepted.is_pending() {
                    self.end_turn(cx);
                }
                if self.traffic.flood().is_some() {
                    return Poll::Ready(None);
                }
                accepted.map(Some)
            });
            match next.await {
                Some(Some(Ok((request, respond)))) => {
                    let mut request = request;
                    let held = request.body_mut().flow_control().used_capacity();
                    let tracked = self.traffic.track(respond.stream_id().as_u32(), held);
                    on_request(Incoming {
                        request,
                        respond,
                        place: Place::take(&self.occupancy),
                        tracked,
                    });
                }
                Some(Some(Err(error))) => return Err(Ended::Broken(error)),
                Some(None) => return Ok(()),
                None if orders.dead.get() => return Ok(()),
                None => match self.traffic.flood() {
                    Some(flood) => {
                        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                        let told = poll_fn(|cx| self.connection.poll_closed(cx));
                        // Nothing is read any more; only the GOAWAY has to leave.
                        let _ = tokio::time::timeout(FAREWELL, told).await;
                        return Err(Ended::Flood(flood));
                    }
                    None => {
                        draining = true;
                        self.connection.graceful_shutdown();
                    }
                },
            }
        }
    }

    /// The HTTP/2 layer has done what it could.
    fn end_turn(&mut self, cx: &Context<'_>) {
        let Self {
            traffic, connection, ..
        } = self;
        traffic.end_turn(cx, |window| connection.set_initial_window_size(window).is_ok());
    }
}

/// What the task beside a tunnel tells its driver. Flags, because the driver looks at them with every frame.
#[derive(Default)]
struct Orders {
    drain: Cell<bool>,
    dead: Cell<bool>,
    driver: RefCell<Option<Waker>>,
}

impl Orders {
    fn wake_by(&self, cx: &Context<'_>) {
        // A task's waker does not change, so the first one serves.
        self.driver.borrow_mut().get_or_insert_with(|| cx.waker().clone());
    }

    fn give(&self, order: &Cell<bool>) {
        order.set(true);
        if let Some(driver) = &*self.driver.borrow() {
            driver.wake_by_ref();
        }
    }
}

/// The task beside a tunnel: waits for the drain and watches over the peer. Ends with the tunnel.
struct Steering(AbortHandle);

impl Steering {
    fn begin(
        orders: Rc<Orders>,
        drain: impl Future<Output = ()> + 'static,
        ping: Option<PingPong>,
        heard: Heard,
        streams: Streams,
    ) -> Self {
        let task = tokio::task::spawn_local(async move {
            let drain = async {
                drain.await;
                orders.give(&orders.drain);
                // A client that was told to go closes the tunnel when it carries nothing. One that does not is helped.
                loop {
                    tokio::time::sleep(LINGER).await;
                    if streams.open() == 0 {
                        break;
                    }
                }
                orders.give(&orders.dead);
            };
            let alive = async {
                match ping {
                    Some(ping) => keepalive::watch(ping, heard).await,
                    None => std::future::pending().await,
                }
                orders.give(&orders.dead);
            };
            tokio::join!(drain, alive);
        });
        Self(task.abort_handle())
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Incoming {
    /// The destination, when the request is a proper CONNECT with a port.
    pub fn authority(&self) -> Result<&Authority, Refusal> {
        authority(&self.request)
    }

    /// Has the client given the stream up already?
    pub fn is_gone(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        self.respond.poll_reset(&mut nobody).is_ready()
    }

    /// Completes when the client has given the stream up.
    pub async fn gone(&mut self) {
        // An error means that the tunnel is gone, and the client with it.
        let _ = poll_fn(|cx| self.respond.poll_reset(cx)).await;
    }

    pub fn forwarded(&self) -> Forwarded {
        Forwarded::from_headers(self.request.headers())
    }

    /// 200: from here on bytes flow.
    pub fn accept(self) -> Result<Stream, h2::Error> {
        let Self {
            request,
            mut respond,
            place,
            tracked,
        } = self;
        let mut answer = Response::new(());
        mirror(request.headers(), answer.headers_mut());
        let send = respond.send_response(answer, false)?;
        Ok(Stream::new(send, request.into_body(), place, tracked))
    }

    /// Nothing was done for it: the client may ask elsewhere, or again (REFUSED_STREAM, RFC 9113, 8.7).
    pub fn leave_unprocessed(mut self) {
        self.respond.send_reset(Reason::REFUSED_STREAM);
    }

    /// An answer without a stream.
    pub fn refuse(mut self, refusal: Refusal) {
        let mut answer = Response::new(());
        *answer.status_mut() = refusal.status();
        debug_assert_ne!(answer.status(), StatusCode::OK);
        let (name, value) = refusal.header();
        answer.headers_mut().insert(name, value);
        mirror(self.request.headers(), answer.headers_mut());
        // The stream may be gone already, and then nobody waits for the answer.
        let _ = self.respond.send_response(answer, true);
    }
}

/// The URI's own parser lets through an empty host, and text between the host and the port.
pub(super) fn authority<B>(request: &Request<B>) -> Result<&Authority, Refusal> {
    if request.method() != Method::CONNECT {
        return Err(Refusal::BadRequest);
    }
    let authority = request.uri().authority().ok_or(Refusal::BadRequest)?;
    let (whole, host) = (authority.as_str(), authority.host());
    let port = whole.strip_prefix(host).and_then(|rest| rest.strip_prefix(':'));
    let proper = !host.is_empty()
        && port
            .and_then(|port| port.parse().ok())
            .is_some_and(|port: u16| port != 0);
    if proper {
        Ok(authority)
    } else {
        Err(Refusal::BadRequest)
    }
}

/// To an Outrigger we answer as one.
fn mirror(request: &HeaderMap, answer: &mut HeaderMap) {
    if request.contains_key(headers::OUTRIGGER) {
        answer.insert(headers::OUTRIGGER, HeaderValue::from_static("1"));
    }
}
