//! How the pool reuses tunnels, and when it opens another one.

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_full_tunnel_gets_a_second_one_and_a_drained_tunnel_a_successor() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(gateway.addr, &id("server")));
        let mut open = Vec::new();
        for _ in 0..MAX_STREAMS {
            open.push(streams(&pool, &key, &svid, &mut gateway).await);
        }
        assert_eq!(pool.open_tunnels(), 1);
        open.push(streams(&pool, &key, &svid, &mut gateway).await);
        assert_eq!(pool.open_tunnels(), 2);

        gateway.drain.notify_waiters();
        let (mut fresh, mut far) = streams(&pool, &key, &svid, &mut gateway).await;
        send(&mut fresh.stream, "new").await;
        assert_eq!(receive(&mut far).await.unwrap().unwrap(), "new");
        let (old, old_far) = &mut open[0];
        send(&mut old.stream, "still here").await;
        assert_eq!(
            receive(old_far).await.unwrap().unwrap(),
            "still here",
            "GOAWAY leaves open streams alone"
        );
    })
    .await;
}

#[tokio::test]
async fn a_burst_of_held_connections_gets_as_many_tunnels_as_it_needs() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(gateway.addr, &id("server")));
        let request = to("10.0.0.2:80");
        let many = 2 * MAX_STREAMS as usize + 50;
        let connects = futures_util::future::join_all((0..many).map(|_| pool.connect(&key, &svid, &request)));
        let accepts = async {
            let mut held = Vec::new();
            while held.len() < many {
                held.push(gateway.incoming.recv().await.unwrap().accept().unwrap());
            }
            held
        };
        let (connected, _held) = tokio::join!(connects, accepts);
        let failed = connected.iter().filter_map(|r| r.as_ref().err()).count();
        assert_eq!((failed, pool.open_tunnels()), (0, 3));
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_takes_ten_streams_gets_ten_a_tunnel() {
    locally(async {
        let ca = Authority::new("root");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let config = tls::server_config(&ca.svid(&id("server"))).unwrap();
        spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = tokio_rustls::TlsAcceptor::from(config.clone());
                spawn_local(async move {
                    let tls = acceptor.accept(tcp).await.unwrap();
                    let builder = h2::server::Builder::new().max_concurrent_streams(10).clone();
                    let mut connection = builder.handshake::<_, Bytes>(tls).await.unwrap();
                    let mut held = Vec::new();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        held.push((
                            request,
                            respond.send_response(http::Response::new(()), false).unwrap(),
                        ));
                    }
                });
            }
        });
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(addr, &id("server")));
        let request = to("10.0.0.2:80");
        let connected =
            futures_util::future::join_all((0..30).map(|_| pool.connect(&key, &svid, &request))).await;
        let failed: Vec<_> = connected.iter().filter_map(|r| r.as_ref().err()).collect();
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(pool.open_tunnels(), 3);
    })
    .await;
}

#[tokio::test]
async fn bulk_gets_a_tunnel_of_its_own() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(gateway.addr, &id("server")));
        let (mut bulk, mut far) = streams(&pool, &key, &svid, &mut gateway).await;
        let mut chunk = Bytes::from(vec![0; 200 * 1024]);
        poll_fn(|cx| bulk.stream.poll_send(cx, &mut chunk)).await.unwrap();
        assert!(receive(&mut far).await.unwrap().is_some());
        let _small = streams(&pool, &key, &svid, &mut gateway).await;
        assert_eq!(pool.open_tunnels(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_renewed_certificate_opens_new_tunnels_and_keeps_the_old_streams() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let (pool, key) = (pool(), key(gateway.addr, &id("server")));
        let (mut old, mut old_far) = streams(&pool, &key, &ca.svid(&id("client")), &mut gateway).await;
        let (renewed, _far) = streams(&pool, &key, &ca.svid(&id("client")), &mut gateway).await;
        assert!(
            renewed.handshake.is_some(),
            "the old tunnel proves an old certificate"
        );
        send(&mut old.stream, "still here").await;
        assert_eq!(receive(&mut old_far).await.unwrap().unwrap(), "still here");
    })
    .await;
}

#[tokio::test]
async fn one_dial_serves_all_who_wait_and_its_failure_too() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let (pool, svid) = (pool(), ca.svid(&id("client")));
        let good = key(gateway.addr, &id("server"));
        let request = to("10.0.0.2:80");
        let connects = futures_util::future::join_all((0..20).map(|_| pool.connect(&good, &svid, &request)));
        let accepts = async {
            let mut streams = Vec::new();
            for _ in 0..20 {
                streams.push(gateway.incoming.recv().await.unwrap().accept().unwrap());
            }
            streams
        };
        let (connected, _streams) = tokio::join!(connects, accepts);
        assert!(connected.iter().all(Result::is_ok));
        assert_eq!(pool.open_tunnels(), 1);

        let bad = key(gateway.addr, &id("somebody-else"));
        let failed =
            futures_util::future::join_all((0..20).map(|_| pool.connect(&bad, &svid, &request))).await;
        assert!(
            failed
                .iter()
                .all(|r| matches!(r, Err(Error::WrongIdentity { .. })))
        );
        while gateway.failures.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            gateway.failures.borrow().len(),
            1,
            "one handshake was refused, not twenty"
        );
    })
    .await;
}

/// A peer whose tunnels the test answers by hand, one after the other.
struct ByHand {
    addr: SocketAddr,
    sessions: mpsc::UnboundedReceiver<std::io::Result<server::TlsStream<TcpStream>>>,
}

impl ByHand {
    async fn start(ca: &Authority) -> Self {
        let leaf = ca.leaf(id("server").as_str(), |_| {});
        let (addr, sessions) = listen(stranger::server(&leaf, stranger::provider())).await;
        Self { addr, sessions }
    }

    async fn tunnel(&mut self) -> Frames<server::TlsStream<TcpStream>> {
        let session = self.sessions.recv().await.unwrap().unwrap();
        Frames::server(session, &[(MAX_CONCURRENT_STREAMS, 100)])
            .await
            .unwrap()
    }
}

/// The identifier of the setting (RFC 9113, 6.5.2).
const MAX_CONCURRENT_STREAMS: u16 = 3;

#[tokio::test]
async fn a_tunnel_that_nobody_uses_is_closed_after_its_time_and_one_in_use_is_not() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(gateway.addr, &id("server")));
        let (used, far) = streams(&pool, &key, &svid, &mut gateway).await;
        for _ in 0..100 {
            pool.sweep(|_| true);
        }
        assert_eq!(pool.open_tunnels(), 1, "in use");
        drop((used, far));
        // Five minutes of sweeps, each half a minute after the one before.
        for _ in 0..9 {
            pool.sweep(|_| true);
        }
        assert_eq!(pool.open_tunnels(), 1, "idle, but not for long enough");
        let (again, far) = streams(&pool, &key, &svid, &mut gateway).await;
        assert!(again.handshake.is_none());
        drop((again, far));
        for sweep in 1..=10 {
            assert_eq!(pool.open_tunnels(), 1, "its time began again: {sweep}");
            pool.sweep(|_| true);
        }
        assert_eq!(pool.open_tunnels(), 0);
        let (fresh, _far) = streams(&pool, &key, &svid, &mut gateway).await;
        assert!(fresh.handshake.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_that_leads_to_nobody_known_takes_no_new_stream_and_keeps_its_own() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let (pool, svid, kept) = (pool(), ca.svid(&id("client")), key(gateway.addr, &id("server")));
        let gone = Key {
            workload: "w2".into(),
            ..kept.clone()
        };
        let (_kept, _far) = streams(&pool, &kept, &svid, &mut gateway).await;
        let (mut live, mut far) = streams(&pool, &gone, &svid, &mut gateway).await;
        pool.sweep(|key| *key != gone);
        assert_eq!(pool.open_tunnels(), 1);
        send(&mut live.stream, "still here").await;
        assert_eq!(receive(&mut far).await.unwrap().unwrap(), "still here");
        let (again, _far) = streams(&pool, &kept, &svid, &mut gateway).await;
        assert!(again.handshake.is_none(), "the other tunnel was kept");
        let (fresh, _far) = streams(&pool, &gone, &svid, &mut gateway).await;
        assert!(fresh.handshake.is_some(), "a tunnel of its own again");
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_that_gives_no_answer_in_time_is_not_asked_again() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(gateway.addr, &id("server")));
        let (mut old, mut far) = streams(&pool, &key, &svid, &mut gateway).await;
        let request = to("10.0.0.2:80");
        let mut asked = Box::pin(pool.connect(&key, &svid, &request));
        let unanswered = tokio::select! {
            answered = &mut asked => panic!("by nobody: {answered:?}"),
            incoming = gateway.incoming.recv() => incoming,
        };
        tokio::time::pause();
        let asked = asked.await;
        tokio::time::resume();
        let error = asked.unwrap_err();
        assert!(
            matches!(
                error,
                Error::TimedOut {
                    what: Step::ConnectRequest,
                    ..
                }
            ),
            "{error:?}"
        );
        let (fresh, _far) = streams(&pool, &key, &svid, &mut gateway).await;
        assert!(
            fresh.handshake.is_some(),
            "whoever comes next waits in no dead tunnel"
        );
        drop(unanswered);
        send(&mut old.stream, "slow, not dead").await;
        assert_eq!(receive(&mut far).await.unwrap().unwrap(), "slow, not dead");
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_the_peer_refused_unprocessed_is_asked_for_again_but_not_for_ever() {
    locally(async {
        let ca = Authority::new("root");
        let mut peer = ByHand::start(&ca).await;
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(peer.addr, &id("server")));
        let request = to("10.0.0.2:80");
        let answering = async {
            let mut tunnel = peer.tunnel().await;
            for _ in 0..3 {
                let stream = tunnel.until(frames::HEADERS).await.unwrap().stream;
                tunnel
                    .send(&Frame::reset(stream, frames::REFUSED_STREAM))
                    .await
                    .unwrap();
            }
            let stream = tunnel.until(frames::HEADERS).await.unwrap().stream;
            tunnel.send(&Frame::ok(stream)).await.unwrap();
            tunnel
        };
        let (asked, mut tunnel) = tokio::join!(pool.connect(&key, &svid, &request), answering);
        let asked = asked.unwrap();

        // Nor is a fresh tunnel, should that be tried: whoever asks gets an answer.
        let asked_for = Cell::new(0);
        let refuse = async |tunnel: &mut Frames<_>| -> Error {
            loop {
                let stream = tunnel.until(frames::HEADERS).await.unwrap().stream;
                asked_for.set(asked_for.get() + 1);
                tunnel
                    .send(&Frame::reset(stream, frames::REFUSED_STREAM))
                    .await
                    .unwrap();
            }
        };
        let error = tokio::select! {
            refused = pool.connect(&key, &svid, &request) => refused.unwrap_err(),
            never = refuse(&mut tunnel) => never,
            never = async { refuse(&mut peer.tunnel().await).await } => never,
        };
        assert!(error.is_refused_stream(), "{error:?}");
        assert!((4..=8).contains(&asked_for.get()), "{}", asked_for.get());
        drop(asked);
    })
    .await;
}

/// The peer says that it goes in the moment in which it is asked: it has processed nothing.
#[tokio::test]
async fn a_tunnel_that_goes_away_while_it_is_asked_gets_a_successor() {
    locally(async {
        let ca = Authority::new("root");
        let mut peer = ByHand::start(&ca).await;
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(peer.addr, &id("server")));
        let request = to("10.0.0.2:80");
        let (first, mut tunnel) = tokio::join!(pool.connect(&key, &svid, &request), async {
            let mut tunnel = peer.tunnel().await;
            let stream = tunnel.until(frames::HEADERS).await.unwrap().stream;
            tunnel.send(&Frame::ok(stream)).await.unwrap();
            tunnel
        });
        let mut first = first.unwrap();
        let (second, _tunnels) = tokio::join!(pool.connect(&key, &svid, &request), async {
            tunnel.until(frames::HEADERS).await.unwrap();
            // The last stream that was processed, and no error.
            let last = Frame::new(frames::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
            tunnel.send(&last).await.unwrap();
            let mut fresh = peer.tunnel().await;
            let stream = fresh.until(frames::HEADERS).await.unwrap().stream;
            fresh.send(&Frame::ok(stream)).await.unwrap();
            tunnel
                .send(&Frame::new(frames::DATA, 0, 1, b"still here"))
                .await
                .unwrap();
            (tunnel, fresh)
        });
        assert!(second.unwrap().handshake.is_some());
        assert_eq!(receive(&mut first.stream).await.unwrap().unwrap(), "still here");
    })
    .await;
}

/// A proxy that is stopped and started again does this to whoever comes in between, which is no answer.
#[tokio::test]
async fn a_peer_that_goes_away_before_it_answers_is_absent_and_one_that_finds_fault_is_not() {
    locally(async {
        let ca = Authority::new("root");
        let mut peer = ByHand::start(&ca).await;
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(peer.addr, &id("server")));
        let request = to("10.0.0.2:80");
        let goes_away = |code| Frame::new(frames::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, code]);
        let ends = [
            // NO_ERROR
            (Some(goes_away(0)), true),
            // PROTOCOL_ERROR
            (Some(goes_away(1)), false),
            // Without a word.
            (None, true),
        ];
        for (word, is_absence) in ends {
            let (asked, ()) = tokio::join!(pool.connect(&key, &svid, &request), async {
                let mut tunnel = peer.tunnel().await;
                tunnel.until(frames::HEADERS).await.unwrap();
                if let Some(word) = &word {
                    tunnel.send(word).await.unwrap();
                }
            });
            let error = asked.unwrap_err();
            assert_eq!(error.is_absence(), is_absence, "{word:?}: {error:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_dial_that_failed_is_tried_again_by_the_next_who_asks() {
    locally(async {
        let ca = Authority::new("root");
        let (pool, svid) = (pool(), ca.svid(&id("client")));
        let request = to("10.0.0.2:80");
        // Bound, so that the port is nobody else's, and not listening yet.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let key = key(socket.local_addr().unwrap(), &id("server"));
        for _ in 0..2 {
            let error = pool.connect(&key, &svid, &request).await.unwrap_err();
            assert!(matches!(error, Error::Connect { .. }), "{error:?}");
        }
        let mut gateway = gateway_at(socket.listen(16).unwrap(), &ca.svid(&id("server"))).await;
        let (connected, _far) = streams(&pool, &key, &svid, &mut gateway).await;
        assert!(connected.handshake.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_dial_that_panics_fails_those_who_wait_for_it_and_the_next_one_dials_anew() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let bugs = Cell::new(1);
        let mark = move |_: BorrowedFd<'_>| {
            let left = bugs.replace(0);
            assert_eq!(left, 0, "a bug while dialling");
            Ok(())
        };
        let pool = Pool::new(
            Rc::new(mark),
            Rc::new(|_| ()),
            Timeouts::default(),
            Budget::new(64 << 20),
        );
        let (svid, key) = (ca.svid(&id("client")), key(gateway.addr, &id("server")));
        let failed = pool.connect(&key, &svid, &to("10.0.0.2:80")).await;
        assert!(matches!(failed, Err(Error::Closed { .. })));
        let again = streams(&pool, &key, &svid, &mut gateway);
        let again = tokio::time::timeout(Duration::from_secs(30), again).await;
        let (mut fresh, mut far) = again.expect("the gateway is dialled again");
        send(&mut fresh.stream, "again").await;
        assert_eq!(receive(&mut far).await.unwrap().unwrap(), "again");
    })
    .await;
}
