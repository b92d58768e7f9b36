//! The door of the certificate service: TLS, and a limit on everything that a stranger can hold open.
//!
//! It does not know what is asked behind it.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use rcgen::SanType;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::{Ca, Error, ca};

/// A stranger has this long to finish its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client pings every 30 s (`wire.md` 2) or talks; one that was silent for two of them is gone.
const SILENCE: Duration = Duration::from_secs(75);
/// Half of the usual limit of 1,024 descriptors a process.
const MAX_CONNECTIONS: usize = 512;
/// After a failed accept (no descriptors left) trying again at once would only burn the core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that finished their handshake. Ends the listener when dropped.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
) -> impl Stream<Item = io::Result<Connection>> {
    let (ready, mut accepted) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            () = accept(listener, tls.into(), ready.clone()) => {}
            () = ready.closed() => {}
        }
    });
    futures_util::stream::poll_fn(move |cx| accepted.poll_recv(cx).map(|next| next.map(Ok)))
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, ready: mpsc::Sender<Connection>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "the certificate service cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, ready) = (tls.clone(), ready.clone());
        tokio::spawn(async move {
            // Answers are small and whole; waiting to fill a segment only delays them.
            let _ = stream.set_nodelay(true);
            match timeout(HANDSHAKE, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let _ = ready.send(Connection::new(stream, peer, slot)).await;
                }
                Ok(Err(error)) => {
                    debug!(%peer, %error, "a TLS handshake with the certificate service failed")
                }
                Err(_) => debug!(%peer, "a TLS handshake with the certificate service took too long"),
            }
        });
    }
}

pub(super) fn tls_config(ca: Arc<Ca>, names: &[String]) -> Result<ServerConfig, Error> {
    let certificate = ServerCertificate::new(ca, ca::server_names(names)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| Error::Tls { source })?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The service's own certificate. It is looked at in each handshake and made anew when half of its life is
/// over, so no timer is needed and an idle service does nothing.
struct ServerCertificate {
    ca: Arc<Ca>,
    names: Vec<SanType>,
    current: Mutex<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

impl ServerCertificate {
    fn new(ca: Arc<Ca>, names: Vec<SanType>) -> Result<Self, Error> {
        let current = Mutex::new(make(&ca, &names, SystemTime::now())?);
        Ok(Self { ca, names, current })
    }

    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= current.renew_at {
            match make(&self.ca, &self.names, now) {
                Ok(new) => *current = new,
                Err(error) => warn!(%error, "the certificate service cannot renew its own certificate"),
            }
        }
        current.key.clone()
    }
}

fn make(ca: &Ca, names: &[SanType], now: SystemTime) -> Result<Current, Error> {
    let (key, end) = ca.server_certificate(names, now)?;
    Ok(Current {
        key: Arc::new(key),
        renew_at: now + end.duration_since(now).unwrap_or_default() / 2,
    })
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// A connection that gives its slot back when it is dropped and fails when its peer falls silent.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    silence: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

/// Who is at the other end, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Connection {
    fn new(stream: TlsStream<TcpStream>, peer: SocketAddr, slot: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            peer,
            silence: Box::pin(sleep(SILENCE)),
            _slot: slot,
        }
    }

    /// Turns waiting into an error when the peer said nothing for too long.
    fn or_silent<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            return poll;
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.peer)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            self.silence.as_mut().reset(Instant::now() + SILENCE);
        }
        self.or_silent(cx, read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.or_silent(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.or_silent(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.or_silent(cx, shut)
    }
}
