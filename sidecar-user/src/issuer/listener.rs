//! The door of the certificate service: it accepts whoever comes, and makes handshakes on a thread of their own.
//!
//! Whoever proves nothing loses its place to the next one (`visit.rs`). Handshakes cost a core's time whoever asks for
//! them; on their own thread they take it from one another, not from the answers to those who have a token, and each source
//! has its turn, so that one client does not wait for the handshakes of a crowd. It does not know what is asked behind it;
//! whose certificate it shows is `certificate.rs`.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::Error;
use super::stats::Ended;
use super::visit::{Door, Visit};
use crate::admission::Turns;

/// After a failed accept (no descriptors left) trying again at once would only burn the core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that have finished their handshake and wait for the service to look at them.
const READY: usize = 64;
/// The thread looks for bytes of connections that are served already after every few steps of handshakes, not after
/// tokio's 61: such a step can take a millisecond.
const EVENT_INTERVAL: u32 = 8;

/// The thread of handshakes. Dropping it ends the sockets that it has accepted, so it has to live as long as they do.
pub(super) struct Handshakes {
    thread: Option<thread::JoinHandle<()>>,
    /// Dropped: nothing is accepted any more, and the port is free.
    closing: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Sender<()>>,
}

type Accepted = (TlsStream<TcpStream>, Arc<Visit>);

/// Connections that finished their handshake.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    door: Arc<Door>,
) -> Result<(Handshakes, impl Stream<Item = io::Result<Connection>>), Error> {
    let fail = |source| Error::Handshakes { source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build()
        .map_err(fail)?;
    let listener = listener.into_std().map_err(fail)?;
    let (ready, accepted) = mpsc::channel(READY);
    let (closing, closed) = oneshot::channel::<()>();
    let (ended, over) = oneshot::channel::<()>();
    let silence = door.limits.silence;
    let body = move || {
        runtime.block_on(async {
            match TcpListener::from_std(listener) {
                Ok(listener) => tokio::select! {
                    () = accept(listener, tls.into(), door, ready) => {}
                    _ = closed => {}
                },
                Err(error) => warn!(%error, "the certificate service cannot use its listener"),
            }
            let _ = over.await;
        });
    };
    let thread = thread::Builder::new()
        .name("handshakes".to_owned())
        .spawn(body)
        .map_err(fail)?;
    let handshakes = Handshakes {
        thread: Some(thread),
        closing: Some(closing),
        ended: Some(ended),
    };
    Ok((handshakes, connections(accepted, silence)))
}

/// Timers belong to the runtime in which they are made, so connections are made in that of the service.
fn connections(
    mut accepted: mpsc::Receiver<Accepted>,
    silence: Duration,
) -> impl Stream<Item = io::Result<Connection>> {
    futures_util::stream::poll_fn(move |cx| accepted.poll_recv(cx))
        .map(move |(stream, visit)| Ok(Connection::new(stream, visit, silence)))
}

impl Handshakes {
    /// Accepts nothing more. Connections that are served go on.
    pub(super) fn close(&mut self) {
        drop(self.closing.take());
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.close();
        drop(self.ended.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing left to wait for; a handshake step takes milliseconds.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, door: Arc<Door>, ready: mpsc::Sender<Accepted>) {
    let turns = Turns::default();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "the certificate service cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = ready.closed() => return,
        };
        let (tls, door, ready, turns) = (tls.clone(), door.clone(), ready.clone(), turns.clone());
        let visit = door.enter(peer);
        tokio::spawn(async move {
            let handshake = handshake(stream, tls, &visit, &turns);
            let stream = tokio::select! {
                biased;
                () = visit.clone().over() => return,
                done = handshake => done,
            };
            match stream {
                Ok(stream) => {
                    door.stats.handshake();
                    tokio::select! {
                        biased;
                        () = visit.clone().over() => {}
                        _ = ready.send((stream, visit.clone())) => {}
                    }
                }
                Err(error) => {
                    door.stats.ended(Ended::Handshake);
                    debug!(%peer, %error, "a TLS handshake with the certificate service failed");
                }
            }
        });
    }
}

async fn handshake(
    stream: TcpStream,
    tls: TlsAcceptor,
    visit: &Visit,
    turns: &Turns,
) -> io::Result<TlsStream<TcpStream>> {
    // Answers are small and whole; waiting to fill a segment only delays them.
    stream.set_nodelay(true)?;
    timeout(visit.first_byte_limit(), stream.readable()).await??;
    turns.by_turns(Some(visit.peer.ip()), tls.accept(stream)).await
}

/// A connection that fails when its peer falls silent, or when it has to go.
pub(super) struct Connection {
    stream: Pin<Box<TimeoutStream<TlsStream<TcpStream>>>>,
    visit: Arc<Visit>,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer(pub(super) Arc<Visit>);

impl Peer {
    pub(super) fn address(&self) -> SocketAddr {
        self.0.peer
    }
}

impl Connection {
    fn new(stream: TlsStream<TcpStream>, visit: Arc<Visit>, silence: Duration) -> Self {
        let mut stream = TimeoutStream::new(stream);
        stream.set_read_timeout(Some(silence));
        stream.set_write_timeout(Some(silence));
        Self {
            stream: Box::pin(stream),
            over: Box::pin(visit.clone().over()),
            visit,
        }
    }

    /// An error once it has to go. To be asked in each read: HTTP/2 always has one under way.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.over.as_mut().poll(cx) {
            Poll::Ready(()) => {
                // A future that has ended is not polled again.
                self.over = Box::pin(std::future::ready(()));
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.visit.end();
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.visit.clone())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_over(cx)?;
        self.stream.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::certificate::tls_config;
    use super::super::visit::Limits;
    use super::super::{Config, PROVIDER, Store};
    use super::*;
    use crate::issuer::scratch::Scratch;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::AsyncReadExt;
    use tokio_rustls::TlsConnector;

    const SHORT: Duration = Duration::from_millis(100);

    struct Served {
        address: SocketAddr,
        door: Arc<Door>,
        store: Arc<Store>,
        _handshakes: Handshakes,
        _scratch: Scratch,
    }

    async fn listen(
        change: impl FnOnce(&mut Limits),
    ) -> (Served, impl Stream<Item = io::Result<Connection>>) {
        let scratch = Scratch::new();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            state_dir: scratch.join("state"),
            trust_domain: "td.test".to_owned(),
            leaf_ttl: Duration::from_secs(3600),
            server_names: vec![],
        };
        let store = Arc::new(Store::open(&config).unwrap());
        let mut limits = Limits::for_descriptors(1024);
        change(&mut limits);
        let door = Door::new(limits);
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Arc::new(tls_config(store.clone(), &[]).unwrap());
        let (handshakes, incoming) = incoming(listener, tls, door.clone()).unwrap();
        let served = Served {
            address,
            door,
            store,
            _handshakes: handshakes,
            _scratch: scratch,
        };
        (served, incoming)
    }

    impl Served {
        async fn connect(&self) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
            let mut roots = RootCertStore::empty();
            roots.add(self.store.current().root_der().clone()).unwrap();
            let config = ClientConfig::builder_with_provider(PROVIDER.clone())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let stream = TcpStream::connect(self.address).await?;
            let name = ServerName::try_from("localhost").unwrap();
            TlsConnector::from(Arc::new(config)).connect(name, stream).await
        }
    }

    #[tokio::test]
    async fn a_stranger_that_never_begins_its_handshake_is_cut_off() {
        let (served, _incoming) = listen(|limits| limits.unproved.first_byte = SHORT).await;
        let mut stranger = TcpStream::connect(served.address).await.unwrap();
        assert_eq!(stranger.read(&mut [0; 16]).await.unwrap(), 0);
        // The other thread closes the socket first.
        while served.door.admission.counts().waiting > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_handshake_alone_proves_nothing() {
        let (served, mut incoming) = listen(|limits| limits.until_proved = SHORT).await;
        let (stranger, accepted) = tokio::join!(served.connect(), incoming.next());
        let (_stranger, mut accepted) = (stranger.unwrap(), accepted.unwrap().unwrap());
        let error = accepted.read(&mut [0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_proved_connection_that_falls_silent_is_an_error_and_not_a_wait_for_ever() {
        let (served, mut incoming) = listen(|limits| limits.silence = SHORT).await;
        let (stranger, accepted) = tokio::join!(served.connect(), incoming.next());
        let (_stranger, mut accepted) = (stranger.unwrap(), accepted.unwrap().unwrap());
        accepted.visit.prove(&"a".into());
        let error = accepted.read(&mut [0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(served.door.tenants.len(), 1);
        drop(accepted);
        assert_eq!(served.door.tenants.len(), 0);
    }

    #[tokio::test]
    async fn whoever_comes_is_served_beside_any_number_of_silent_ones() {
        let (served, mut incoming) = listen(|limits| {
            limits.unproved.places = 2;
            limits.unproved.per_source = 2;
        })
        .await;
        let mut silent = Vec::new();
        for _ in 0..8 {
            silent.push(TcpStream::connect(served.address).await.unwrap());
        }
        let (newcomer, accepted) = tokio::join!(served.connect(), incoming.next());
        assert!(newcomer.is_ok() && accepted.unwrap().is_ok());
        assert_eq!(
            silent[0].read(&mut [0; 16]).await.unwrap_or(0),
            0,
            "the oldest has made room"
        );
        assert!(served.door.admission.counts().waiting <= 2);
        let now = SystemTime::now();
        assert!(served.store.current().ends() > now);
    }
}
