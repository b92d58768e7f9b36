//! The dialling side of a tunnel: one TLS session, many CONNECT streams. Which tunnel to use is the pool's choice.

use std::cell::{Cell, OnceCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, Connection, SendRequest};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::frames::PREFACE;
use super::socket::Socket;
use super::stream::{Occupancy, Place};
use super::traffic::Traffic;
use super::{
    CONNECTION_WINDOW, DATA_FRAME_BUDGET, ERROR_RESETS, Forwarded, MAX_FRAME, MAX_HEADER_LIST, Refusal,
    SEND_BUFFER, STREAM_WINDOW, Stream, headers, keepalive,
};
use crate::budget::Budget;
use crate::model::SpiffeId;
use crate::transport::tls::{self, Peer};
use crate::transport::{Counted, Error, Step, Tally, Timeouts, tcp};

/// What one CONNECT asks for.
#[derive(Clone, Debug)]
pub struct ConnectTo<'a> {
    /// The application's address, as the peer's proxy shall dial it.
    pub authority: SocketAddr,
    /// The application that opened the connection.
    pub client: SocketAddr,
    /// The service that it dialled.
    pub service: Option<&'a str>,
}

/// An established tunnel.
#[derive(Debug)]
pub struct Tunnel {
    addr: SocketAddr,
    requests: SendRequest<Bytes>,
    peer: Peer,
    handshake: Duration,
    occupancy: Rc<Occupancy>,
    traffic: Traffic,
    open: Rc<Cell<bool>>,
    /// The same in the hands of those who may end it, also when it takes no new streams.
    life: Rc<Life>,
}

/// A tunnel's connection. Lives as long as it is driven.
#[derive(Debug)]
pub(in crate::transport) struct Life {
    addr: SocketAddr,
    peer: Peer,
    traffic: Traffic,
    open: Rc<Cell<bool>>,
    driver: OnceCell<AbortHandle>,
}

impl Life {
    pub(in crate::transport) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Ends it, with all its streams, because its peer is not believed any more.
    pub(in crate::transport) fn distrust(&self) {
        self.traffic.distrust();
        self.end();
    }

    fn end(&self) -> bool {
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
        self.open.replace(false)
    }
}

impl Tunnel {
    /// Connects, proves who we are and makes the peer prove that it is one of `expected`.
    pub async fn dial(
        addr: SocketAddr,
        config: Arc<ClientConfig>,
        expected: &[SpiffeId],
        out_by: (&tcp::Mark, Option<u32>),
        tally: &Tally,
        (limits, budget): (Timeouts, &Budget),
    ) -> Result<Self, Error> {
        let (mark, device) = out_by;
        let tcp = tcp::dial_tunnel(addr, mark, device, limits.connect).await?;
        let start = Instant::now();
        let handshake = TlsConnector::from(config).connect(ServerName::IpAddress(addr.ip().into()), tcp);
        let tls = within(limits.tls, addr, Step::TlsHandshake, handshake)
            .await?
            .map_err(|source| refused_handshake(addr, expected, source))?;
        let peer =
            tls::peer(tls.get_ref().1, tls::Side::Server, false).ok_or_else(|| Error::WrongIdentity {
                addr,
                expected: expected.to_vec(),
                found: vec![],
            })?;
        let handshake = start.elapsed();
        Self::open(addr, tls, (peer, handshake), tally, (limits, budget)).await
    }

    async fn open(
        addr: SocketAddr,
        tls: tokio_rustls::client::TlsStream<TcpStream>,
        (peer, handshake): (Peer, Duration),
        tally: &Tally,
        (limits, budget): (Timeouts, &Budget),
    ) -> Result<Self, Error> {
        let traffic = Traffic::new(budget, (0, PREFACE), Instant::now());
        traffic.socket().open(tls.get_ref().0.as_raw_fd());
        let (io, heard) = Socket::new(tls, traffic.clone());
        let preface = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_send_buffer_size(SEND_BUFFER)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .enable_push(false)
            .max_local_error_reset_streams(Some(ERROR_RESETS))
            // Nothing is asked before the peer has said how much may be asked at once.
            .initial_max_send_streams(0)
            .handshake(io);
        let (requests, mut connection) = within(limits.settings, addr, Step::Http2Preface, preface)
            .await?
            .map_err(|e| broken(addr, e))?;
        within(
            limits.settings,
            addr,
            Step::Http2Preface,
            settled(&mut connection, &requests, &traffic),
        )
        .await?
        .map_err(|e| broken(addr, e))?;
        let ping = connection.ping_pong();
        let open = Rc::new(Cell::new(true));
        let life = Rc::new(Life {
            addr,
            peer: peer.clone(),
            traffic: traffic.clone(),
            open: open.clone(),
            driver: OnceCell::new(),
        });
        let counted = Counted::new(tally);
        let driven = life.clone();
        let driver = tokio::task::spawn_local(async move {
            let Life {
                addr, traffic, open, ..
            } = &*driven;
            if let Err(error) = poll_fn(|cx| drive(&mut connection, traffic, cx)).await {
                tracing::debug!(%addr, %error, "tunnel closed");
            }
            if let Some(flood) = traffic.flood() {
                tracing::warn!(%addr, ?flood, "tunnel closed: its peer floods it");
            }
            open.set(false);
            drop(counted);
        });
        // Nobody else sets it.
        let _ = life.driver.set(driver.abort_handle());
        // Beside the driver, not in it: what the driver polls, it polls with every frame.
        if let Some(ping) = ping {
            let watched = Rc::downgrade(&life);
            tokio::task::spawn_local(async move {
                keepalive::watch(ping, heard).await;
                if watched.upgrade().is_some_and(|life| life.end()) {
                    tracing::warn!(%addr, "tunnel closed: its peer does not answer any more");
                }
            });
        }
        Ok(Self {
            addr,
            requests,
            peer,
            handshake,
            occupancy: Rc::default(),
            traffic,
            open,
            life,
        })
    }

    pub(in crate::transport) fn life(&self) -> Weak<Life> {
        Rc::downgrade(&self.life)
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What the TLS handshake took.
    pub fn handshake(&self) -> Duration {
        self.handshake
    }

    pub(in crate::transport) fn is_open(&self) -> bool {
        self.open.get()
    }

    pub(in crate::transport) fn streams(&self) -> usize {
        self.occupancy.streams.get()
    }

    pub(in crate::transport) fn bulk_streams(&self) -> usize {
        self.occupancy.bulk.get()
    }

    /// How many streams the peer allows at once.
    pub(in crate::transport) fn max_streams(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// One CONNECT, answered.
    pub async fn connect(&self, request: &ConnectTo<'_>, limits: Timeouts) -> Result<Stream, Error> {
        let addr = self.addr;
        let place = Place::take(&self.occupancy);
        let asked = async {
            let mut requests = self.requests.clone().ready().await?;
            let (answer, send) = requests.send_request(self.message(request), false)?;
            let tracked = self.traffic.track(send.stream_id().as_u32(), 0);
            Ok((answer.await?, send, tracked))
        };
        let (answer, send, tracked) = within(limits.request, addr, Step::ConnectRequest, asked)
            .await?
            .map_err(|e| broken(addr, e))?;
        match answer.status() {
            StatusCode::OK => Ok(Stream::new(send, answer.into_body(), place, tracked)),
            status => {
                let refusal = Refusal::from_headers(answer.headers());
                Err(Error::Refused {
                    addr,
                    status: status.as_u16(),
                    refusal,
                })
            }
        }
    }

    fn message(&self, request: &ConnectTo<'_>) -> Request<()> {
        let mut message = Request::new(());
        *message.method_mut() = Method::CONNECT;
        // An address with a port is always a valid authority.
        *message.uri_mut() = Uri::try_from(request.authority.to_string()).expect("ip:port is an authority");
        let headers = message.headers_mut();
        headers.insert(headers::OUTRIGGER, HeaderValue::from_static("1"));
        if let Some((name, value)) = Forwarded::header(request.client, request.service) {
            headers.insert(name, value);
        }
        message
    }
}

/// Drives the connection until the peer's SETTINGS have arrived: from then on its limit of streams is known, and a
/// refusal of our certificate, which TLS 1.3 lets arrive after the handshake, would have arrived before.
async fn settled<S>(
    connection: &mut Connection<S, Bytes>,
    requests: &SendRequest<Bytes>,
    traffic: &Traffic,
) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| match drive(connection, traffic, cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(Reason::NO_ERROR.into())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending if requests.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// One turn of the connection. Ends it when its peer floods.
fn drive<S>(
    connection: &mut Connection<S, Bytes>,
    traffic: &Traffic,
    cx: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let driven = Pin::new(&mut *connection).poll(cx);
    if traffic.flood().is_some() {
        return Poll::Ready(Err(Reason::ENHANCE_YOUR_CALM.into()));
    }
    if driven.is_pending() {
        traffic.end_turn(cx, |window| connection.set_initial_window_size(window).is_ok());
    }
    driven
}

async fn within<T>(
    limit: Duration,
    addr: SocketAddr,
    what: Step,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| Error::TimedOut {
            addr,
            what,
            after: limit,
        })
}

fn refused_handshake(addr: SocketAddr, expected: &[SpiffeId], source: std::io::Error) -> Error {
    match tls::wrong_identity(&source) {
        Some(found) => Error::WrongIdentity {
            addr,
            expected: expected.to_vec(),
            found,
        },
        None => Error::Tls {
            addr,
            source: Rc::new(source),
        },
    }
}

/// In TLS 1.3 a server's refusal of our certificate arrives after our handshake has ended: an alert in the place
/// of the first answer is a failed handshake.
fn broken(addr: SocketAddr, error: h2::Error) -> Error {
    let alert = |e: &std::io::Error| e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    if error.get_io().is_some_and(alert) {
        let source = error.into_io().expect("it has one");
        return Error::Tls {
            addr,
            source: Rc::new(source),
        };
    }
    Error::Http2 {
        addr,
        source: Rc::new(error),
    }
}
