//! How the pool reuses tunnels, and when it opens another one.

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_full_tunnel_gets_a_second_one_and_a_drained_tunnel_a_successor() {
    locally(async {
        let ca = Authority::new();
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
        let ca = Authority::new();
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
        let ca = Authority::new();
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
        let ca = Authority::new();
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
        let ca = Authority::new();
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
        let ca = Authority::new();
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

#[tokio::test]
async fn a_dial_that_panics_fails_those_who_wait_for_it_and_the_next_one_dials_anew() {
    locally(async {
        let ca = Authority::new();
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
