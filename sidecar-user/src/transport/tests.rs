//! Tunnels on loopback with real handshakes: whom they let in, how streams end, how the pool reuses them.

mod flood_facts;
mod pool_facts;
mod server_facts;
mod tls_facts;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::hbone::client::ConnectTo;
use super::hbone::server::{Incoming, Session};
use super::hbone::{MAX_STREAMS, Refusal, Stream};
use super::pool::{Connected, Key, Pool};
use super::{Error, Step, Timeouts, tls};
use crate::budget::Budget;
use crate::identity::{self, Svid};
use crate::model::SpiffeId;
use crate::testing::authority::{Authority, Leaf};
use crate::testing::frames::{self, Flooded, Frame, Frames};
use crate::testing::stranger;

impl Authority {
    /// An identity as the certificate service gives it.
    pub(crate) fn svid(&self, id: &SpiffeId) -> Arc<Svid> {
        self.svid_trusting(id, self.pem())
    }

    /// As `svid`, with another bundle of roots.
    fn svid_trusting(&self, id: &SpiffeId, roots: &str) -> Arc<Svid> {
        let key = identity::Key::generate().unwrap();
        let leaf = self.sign(&key.request(id).unwrap(), id.as_str(), |_| {}).pem();
        Arc::new(Svid::from_answer(id, &key, &[leaf, roots.to_owned()], SystemTime::now()).unwrap())
    }
}

pub(crate) fn id(account: &str) -> SpiffeId {
    SpiffeId::new("td.test", "t", account).unwrap()
}

/// A peer's proxy: hands each CONNECT to the test.
pub(crate) struct Gateway {
    pub(crate) addr: SocketAddr,
    incoming: mpsc::UnboundedReceiver<Incoming>,
    failures: Rc<RefCell<VecDeque<Error>>>,
    drain: Rc<Notify>,
}

pub(crate) async fn gateway(svid: &Svid) -> Gateway {
    gateway_at(TcpListener::bind("127.0.0.1:0").await.unwrap(), svid).await
}

async fn gateway_at(listener: TcpListener, svid: &Svid) -> Gateway {
    let addr = listener.local_addr().unwrap();
    let (out, incoming) = mpsc::unbounded_channel();
    let config = tls::server_config(svid).unwrap();
    let failures: Rc<RefCell<VecDeque<Error>>> = Rc::default();
    let drain = Rc::new(Notify::new());
    let (failed, drained) = (failures.clone(), drain.clone());
    spawn_local(async move {
        while let Ok((tcp, client)) = listener.accept().await {
            let (config, out, failed, drained) =
                (config.clone(), out.clone(), failed.clone(), drained.clone());
            spawn_local(async move {
                match Session::accept(tcp, client, config, Timeouts::default(), &Budget::new(64 << 20)).await
                {
                    Ok(session) => {
                        let _ = session
                            .serve(
                                async move { drained.notified().await },
                                &(Rc::new(|_| ()) as super::Tally),
                                |i| drop(out.send(i)),
                            )
                            .await;
                    }
                    Err(error) => failed.borrow_mut().push_back(error),
                }
            });
        }
    });
    Gateway {
        addr,
        incoming,
        failures,
        drain,
    }
}

/// A client whose frames are the test's own, with a good certificate.
async fn by_hand(gateway: &Gateway, ca: &Authority) -> Frames<client::TlsStream<TcpStream>> {
    let leaf = ca.leaf(id("stranger").as_str(), |_| {});
    let config = stranger::client(Some(&leaf), stranger::provider());
    Frames::client(shake_hands(gateway.addr, config).await.unwrap())
        .await
        .unwrap()
}

/// Only the handshake. A refusal of the client's certificate comes with the first read after it.
async fn shake_hands(
    addr: SocketAddr,
    config: ClientConfig,
) -> std::io::Result<client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(addr).await?;
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::from(addr.ip()), tcp)
        .await
}

/// A listener that hands its sessions to the test, each after the handshake.
async fn listen(
    config: ServerConfig,
) -> (
    SocketAddr,
    mpsc::UnboundedReceiver<std::io::Result<server::TlsStream<TcpStream>>>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (out, sessions) = mpsc::unbounded_channel();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, out) = (acceptor.clone(), out.clone());
            spawn_local(async move { out.send(acceptor.accept(tcp).await) });
        }
    });
    (addr, sessions)
}

pub(crate) fn pool() -> Pool {
    Pool::new(
        Rc::new(|_| Ok(())),
        Rc::new(|_| ()),
        Timeouts::default(),
        Budget::new(64 << 20),
    )
}

pub(crate) fn key(gateway: SocketAddr, expected: &SpiffeId) -> Key {
    Key {
        gateway,
        expected: vec![expected.clone()],
        workload: "w1".into(),
        device: None,
    }
}

fn to(authority: &str) -> ConnectTo<'static> {
    ConnectTo {
        authority: authority.parse().unwrap(),
        client: "10.0.0.1:4711".parse().unwrap(),
        service: Some("echo.t.svc"),
    }
}

/// A connected pair of streams: ours and the peer's.
pub(crate) async fn streams(
    pool: &Pool,
    key: &Key,
    svid: &Arc<Svid>,
    gateway: &mut Gateway,
) -> (Connected, Stream) {
    let request = to("10.0.0.2:80");
    let connect = pool.connect(key, svid, &request);
    let (connected, accepted) = tokio::join!(connect, async {
        gateway.incoming.recv().await.unwrap().accept().unwrap()
    });
    (connected.unwrap(), accepted)
}

pub(crate) async fn send(stream: &mut Stream, text: &'static str) {
    let mut chunk = Bytes::from_static(text.as_bytes());
    poll_fn(|cx| stream.poll_send(cx, &mut chunk)).await.unwrap();
}

pub(crate) async fn receive(stream: &mut Stream) -> std::io::Result<Option<Bytes>> {
    poll_fn(|cx| stream.poll_recv(cx)).await
}

/// Sends until nothing moves any more: with its clock stopped the runtime comes to a time-out only when no task of it
/// and no socket has anything left to do.
pub(crate) async fn push_until_full(stream: &mut Stream) -> usize {
    let mut taken = 0;
    let pushed = async {
        loop {
            let mut chunk = Bytes::from(vec![0; 64 * 1024]);
            poll_fn(|cx| stream.poll_send(cx, &mut chunk)).await.unwrap();
            taken += 64 * 1024;
        }
    };
    tokio::time::pause();
    let full: Result<(), _> = tokio::time::timeout(Duration::from_secs(1), pushed).await;
    tokio::time::resume();
    assert!(full.is_err(), "it never ends");
    taken
}

pub(crate) async fn locally(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_stream_carries_bytes_and_both_sides_know_each_other() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let (pool, svid) = (pool(), ca.svid(&id("client")));
        let key = key(gateway.addr, &id("server"));
        let request = to("10.0.0.2:80");
        let connect = pool.connect(&key, &svid, &request);
        let accept = async {
            let incoming = gateway.incoming.recv().await.unwrap();
            assert_eq!(incoming.authority().unwrap().as_str(), "10.0.0.2:80");
            let forwarded = incoming.forwarded();
            assert_eq!(forwarded.client, Some("10.0.0.1:4711".parse().unwrap()));
            assert_eq!(forwarded.host.as_deref(), Some("echo.t.svc"));
            incoming.accept().unwrap()
        };
        let (connected, mut far) = tokio::join!(connect, accept);
        let Connected {
            stream: mut near,
            peer,
            handshake,
        } = connected.unwrap();
        assert_eq!(peer.id, id("server"));
        assert_eq!(
            (peer.facts.version, peer.facts.cipher),
            ("TLSv1.3", "TLS13_AES_128_GCM_SHA256")
        );
        assert_eq!(peer.facts.key_exchange, "X25519MLKEM768");
        assert!(
            handshake.is_some() && !peer.facts.reused_tunnel,
            "the first one pays for the handshake"
        );
        send(&mut near, "ping").await;
        assert_eq!(receive(&mut far).await.unwrap().unwrap(), "ping");
        near.finish().unwrap();
        assert_eq!(receive(&mut far).await.unwrap(), None, "half-closed");
        send(&mut far, "pong").await;
        assert_eq!(receive(&mut near).await.unwrap().unwrap(), "pong");
        drop((near, far));
        let (second, _far) = streams(&pool, &key, &svid, &mut gateway).await;
        assert!(
            second.handshake.is_none() && second.peer.facts.reused_tunnel,
            "the second one does not"
        );
    })
    .await;
}

#[tokio::test]
async fn a_server_with_another_identity_is_refused_and_named() {
    locally(async {
        let ca = Authority::new("root");
        let gateway = gateway(&ca.svid(&id("impostor"))).await;
        let svid = ca.svid(&id("client"));
        let error = pool()
            .connect(&key(gateway.addr, &id("server")), &svid, &to("10.0.0.2:80"))
            .await
            .unwrap_err();
        let Error::WrongIdentity { found, expected, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(
            (found.as_slice(), expected.as_slice()),
            (&[id("impostor")][..], &[id("server")][..])
        );
    })
    .await;
}

#[tokio::test]
async fn nobody_expected_is_nobody_believed() {
    locally(async {
        let ca = Authority::new("root");
        let gateway = gateway(&ca.svid(&id("server"))).await;
        let key = Key {
            expected: vec![],
            ..key(gateway.addr, &id("server"))
        };
        let error = pool()
            .connect(&key, &ca.svid(&id("client")), &to("10.0.0.2:80"))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::WrongIdentity { .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_server_of_an_unknown_authority_is_refused() {
    locally(async {
        let gateway = gateway(&Authority::new("root").svid(&id("server"))).await;
        let svid = Authority::new("root").svid(&id("client"));
        let error = pool()
            .connect(&key(gateway.addr, &id("server")), &svid, &to("10.0.0.2:80"))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_client_of_another_trust_domain_is_refused_and_learns_it_as_a_failed_handshake() {
    locally(async {
        let ca = Authority::new("root");
        let gateway = gateway(&ca.svid(&id("server"))).await;
        let svid = ca.svid(&SpiffeId::new("other.test", "t", "client").unwrap());
        let error = pool()
            .connect(&key(gateway.addr, &id("server")), &svid, &to("10.0.0.2:80"))
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::Tls { .. } | Error::Http2 { .. }),
            "{error:?}"
        );
        assert!(matches!(
            gateway.failures.borrow().front(),
            Some(Error::Tls { .. })
        ));
    })
    .await;
}

#[tokio::test]
async fn a_refusal_travels_with_its_cause() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(gateway.addr, &id("server")));
        for (refusal, code) in [
            (Refusal::ConnectionRefused, 503),
            (Refusal::Denied, 401),
            (Refusal::BadRequest, 400),
        ] {
            let request = to("10.0.0.2:81");
            let connect = pool.connect(&key, &svid, &request);
            let (refused, ()) = tokio::join!(connect, async {
                gateway.incoming.recv().await.unwrap().refuse(refusal)
            });
            let error = refused.unwrap_err();
            let Error::Refused {
                status,
                refusal: told,
                ..
            } = error
            else {
                panic!("{error}")
            };
            assert_eq!((status, told), (code, Some(refusal)));
        }
        assert_eq!(pool.open_tunnels(), 1, "a refusal costs no tunnel");
    })
    .await;
}

#[tokio::test]
async fn a_reset_arrives_as_a_reset_and_after_what_was_sent_before() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(gateway.addr, &id("server")));
        for by_client in [true, false] {
            let (connected, far) = streams(&pool, &key, &svid, &mut gateway).await;
            let (mut breaker, mut other) = if by_client {
                (connected.stream, far)
            } else {
                (far, connected.stream)
            };
            send(&mut breaker, "last words").await;
            tokio::task::yield_now().await;
            breaker.reset();
            assert_eq!(receive(&mut other).await.unwrap().unwrap(), "last words");
            let error = receive(&mut other).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        assert_eq!(pool.open_tunnels(), 1, "only the streams were reset");
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_its_sender_and_no_other_stream() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(gateway.addr, &id("server")));
        let (mut stuck, _unread) = streams(&pool, &key, &svid, &mut gateway).await;
        let (mut other, mut far) = streams(&pool, &key, &svid, &mut gateway).await;
        let taken = push_until_full(&mut stuck.stream).await;
        assert!(
            taken > 0 && taken <= 2 << 20,
            "bounded by the window and the send buffer, not {taken}"
        );
        send(&mut other.stream, "through").await;
        assert_eq!(receive(&mut far).await.unwrap().unwrap(), "through");
    })
    .await;
}

/// Each small frame would keep some 300 bytes in the HTTP/2 layer.
#[tokio::test]
async fn what_waits_for_a_reader_that_does_not_read_becomes_one_piece() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(gateway.addr, &id("server")));
        let (mut connected, mut far) = streams(&pool, &key, &svid, &mut gateway).await;
        const MANY: usize = 1000;
        for _ in 0..MANY {
            send(&mut connected.stream, "x").await;
        }
        let whole = poll_fn(|cx| {
            far.gather(cx);
            match far.waiting_bytes() {
                MANY => std::task::Poll::Ready(()),
                _ => std::task::Poll::Pending,
            }
        });
        whole.await;
        assert_eq!(receive(&mut far).await.unwrap().unwrap().len(), MANY);
    })
    .await;
}
