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

/// What a stranger can hold open, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    handshake: Duration,
    silence: Duration,
    connections: usize,
}

pub(super) const LIMITS: Limits = Limits {
    handshake: Duration::from_secs(10),
    // A client pings every 30 s (`wire.md` 2) or talks; one that was silent for two of them is gone.
    silence: Duration::from_secs(75),
    // Half of the usual limit of 1,024 descriptors a process.
    connections: 512,
};

/// After a failed accept (no descriptors left) trying again at once would only burn the core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that finished their handshake. Ends the listener when dropped.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    limits: Limits,
) -> impl Stream<Item = io::Result<Connection>> {
    let (ready, mut accepted) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            () = accept(listener, tls.into(), limits, ready.clone()) => {}
            () = ready.closed() => {}
        }
    });
    futures_util::stream::poll_fn(move |cx| accepted.poll_recv(cx).map(|next| next.map(Ok)))
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, limits: Limits, ready: mpsc::Sender<Connection>) {
    let slots = Arc::new(Semaphore::new(limits.connections));
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
            match timeout(limits.handshake, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let _ = ready
                        .send(Connection::new(stream, peer, limits.silence, slot))
                        .await;
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
    silence: Duration,
    silent: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

/// Who is at the other end, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Connection {
    fn new(
        stream: TlsStream<TcpStream>,
        peer: SocketAddr,
        silence: Duration,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            stream,
            peer,
            silence,
            silent: Box::pin(sleep(silence)),
            _slot: slot,
        }
    }

    /// Turns waiting into an error when the peer said nothing for too long.
    fn or_silent<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            return poll;
        }
        ready!(self.silent.as_mut().poll(cx));
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
            let end = Instant::now() + self.silence;
            self.silent.as_mut().reset(end);
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::AsyncReadExt;
    use tokio_rustls::TlsConnector;

    const HOUR: Duration = Duration::from_secs(3600);

    fn ca() -> Arc<Ca> {
        Arc::new(Ca::ephemeral("td.test", HOUR, SystemTime::now()).unwrap())
    }

    const SHORT: Duration = Duration::from_millis(100);

    async fn listen(ca: Arc<Ca>, limits: Limits) -> (SocketAddr, impl Stream<Item = io::Result<Connection>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Arc::new(tls_config(ca, &[]).unwrap());
        (address, incoming(listener, tls, limits))
    }

    fn connector(ca: &Ca) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(ca.root_der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config).into()
    }

    #[tokio::test]
    async fn a_stranger_that_never_begins_its_handshake_is_cut_off() {
        let limits = Limits {
            handshake: SHORT,
            ..LIMITS
        };
        let (address, _incoming) = listen(ca(), limits).await;
        let begin = Instant::now();
        let mut stranger = TcpStream::connect(address).await.unwrap();
        assert_eq!(stranger.read(&mut [0; 16]).await.unwrap(), 0);
        assert!(begin.elapsed() >= SHORT);
    }

    #[tokio::test]
    async fn a_connection_that_falls_silent_is_an_error_and_not_a_wait_for_ever() {
        let ca = ca();
        let limits = Limits {
            silence: SHORT,
            ..LIMITS
        };
        let (address, mut incoming) = listen(ca.clone(), limits).await;
        let stranger = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = connector(&ca);
        let (_stranger, accepted) = tokio::join!(connector.connect(name, stranger), incoming.next());
        let mut accepted = accepted.unwrap().unwrap();
        let error = accepted.read(&mut [0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn beyond_the_limit_a_connection_waits_until_another_one_ends() {
        let ca = ca();
        let limits = Limits {
            connections: 1,
            ..LIMITS
        };
        let (address, mut incoming) = listen(ca.clone(), limits).await;
        let first = TcpStream::connect(address).await.unwrap();
        let second = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = connector(&ca);
        // The first says nothing and holds the only slot.
        let mut served =
            std::pin::pin!(async { tokio::join!(connector.connect(name, second), incoming.next()).1 });
        tokio::select! {
            _ = &mut served => panic!("the second was served beside the first"),
            () = sleep(SHORT) => drop(first),
        }
        assert!(served.await.unwrap().is_ok());
    }

    #[test]
    fn the_services_own_certificate_is_renewed_at_half_life_and_not_before() {
        let now = SystemTime::now();
        let certificate = ServerCertificate::new(ca(), ca::server_names(&[]).unwrap()).unwrap();
        let first = certificate.at(now);
        assert!(Arc::ptr_eq(&first, &certificate.at(now + HOUR / 3)));
        let second = certificate.at(now + HOUR * 2 / 3);
        assert_ne!(first.cert, second.cert);
        assert!(Arc::ptr_eq(&second, &certificate.at(now + HOUR)));
    }

    #[test]
    fn a_name_that_no_certificate_can_hold_is_refused() {
        let error = ca::server_names(&["ünicode".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("ünicode"), "{error}");
    }
}
