//! Relaying facts where one side is a stream of a tunnel: app ⇄ relay ⇄ stream ⇄ the peer's end of it.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};

use super::*;
use crate::budget::Budget;
use crate::model::flow;
use crate::relay::{self, End, Limits, Side};
use crate::testing::authority::Authority;
use crate::testing::full::fill;
use crate::transport::tests::{gateway, id, key, locally, pool, push_until_full, receive, send, streams};

struct Joined {
    app: TcpStream,
    far: Stream,
    relay: JoinHandle<End>,
    bytes: Rc<flow::Bytes>,
}

async fn joined() -> Joined {
    let ca = Authority::new("root");
    let mut gateway = gateway(&ca.svid(&id("server"))).await;
    let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(gateway.addr, &id("server")));
    let (near, far) = streams(&pool, &key, &svid, &mut gateway).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (app, accepted) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    let bytes = Rc::new(flow::Bytes::default());
    let counted = bytes.clone();
    let relay = spawn_local(async move {
        // Which would close with its last handle.
        let _pool = pool;
        let (mut down, mut up) = (accepted.unwrap().0, near.stream);
        let limits = Limits {
            half_closed: Duration::from_secs(60),
        };
        relay::relay(&mut down, &mut up, &counted, &Budget::new(64 << 20), limits).await
    });
    Joined {
        app: app.unwrap(),
        far,
        relay,
        bytes,
    }
}

fn abort(app: TcpStream) {
    app.set_zero_linger().unwrap();
}

/// Reads to the end, giving credit, and gives how much there was and how it ended.
async fn drain(far: &mut Stream) -> (usize, Option<ErrorKind>) {
    let mut read = 0;
    loop {
        match receive(far).await {
            Ok(Some(chunk)) => {
                read += chunk.len();
                far.consumed(chunk.len());
            }
            Ok(None) => return (read, None),
            Err(error) => return (read, Some(error.kind())),
        }
    }
}

#[tokio::test]
async fn each_end_is_passed_on_alone() {
    locally(async {
        for app_first in [true, false] {
            let Joined {
                mut app,
                mut far,
                relay,
                bytes,
            } = joined().await;
            let mut got = String::new();
            if app_first {
                app.write_all(b"question").await.unwrap();
                app.shutdown().await.unwrap();
                assert_eq!(drain(&mut far).await, (8, None));
                send(&mut far, "late answer").await;
                far.finish().unwrap();
                app.read_to_string(&mut got).await.unwrap();
            } else {
                send(&mut far, "late answer").await;
                far.finish().unwrap();
                app.read_to_string(&mut got).await.unwrap();
                app.write_all(b"question").await.unwrap();
                app.shutdown().await.unwrap();
                assert_eq!(drain(&mut far).await, (8, None));
            }
            assert_eq!(got, "late answer");
            let end = relay.await.unwrap();
            assert!(matches!(end, End::Eof), "{end:?}");
            assert_eq!((bytes.sent(), bytes.received()), (8, 11));
        }
    })
    .await;
}

#[tokio::test]
async fn a_reset_of_either_side_reaches_the_other_as_one() {
    locally(async {
        let Joined {
            mut app,
            mut far,
            relay,
            ..
        } = joined().await;
        app.write_all(b"last words").await.unwrap();
        assert_eq!(receive(&mut far).await.unwrap().unwrap(), "last words");
        abort(app);
        assert_eq!(drain(&mut far).await, (0, Some(ErrorKind::ConnectionReset)));
        let end = relay.await.unwrap();
        assert!(
            matches!(
                end,
                End::Broken {
                    by: Side::Downstream,
                    ..
                }
            ),
            "{end:?}"
        );

        let Joined {
            mut app,
            mut far,
            relay,
            ..
        } = joined().await;
        send(&mut far, "last words").await;
        app.read_exact(&mut [0; 10]).await.unwrap();
        far.reset();
        let error = app.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let end = relay.await.unwrap();
        assert!(
            matches!(
                end,
                End::Broken {
                    by: Side::Upstream,
                    ..
                }
            ),
            "{end:?}"
        );
    })
    .await;
}

/// The application had ended its side, and then aborts: the peer keeps what was sent and its end, and learns that
/// nobody reads its answer any more.
#[tokio::test]
async fn a_reset_after_the_end_stops_the_other_side_and_takes_nothing_from_it() {
    const LEN: usize = 300_000;
    locally(async {
        let Joined {
            mut app,
            mut far,
            relay,
            ..
        } = joined().await;
        app.write_all(&vec![1; LEN]).await.unwrap();
        app.shutdown().await.unwrap();
        let first = receive(&mut far).await.unwrap().unwrap();
        far.consumed(first.len());
        abort(app);
        let end = relay.await.unwrap();
        assert!(
            matches!(
                end,
                End::Broken {
                    by: Side::Downstream,
                    ..
                }
            ),
            "{end:?}"
        );
        poll_fn(|cx| far.poll_gone(cx)).await;
        assert_eq!(drain(&mut far).await, (LEN - first.len(), None));
        let mut chunk = Bytes::from_static(b"for nobody");
        poll_fn(|cx| far.poll_send(cx, &mut chunk)).await.unwrap_err();
    })
    .await;
}

#[tokio::test]
async fn a_reset_is_told_to_a_peer_that_does_not_read() {
    locally(async {
        let Joined {
            app,
            mut far,
            relay,
            bytes,
        } = joined().await;
        let written = fill(&app).await;
        abort(app);
        let end = relay.await.unwrap();
        assert!(
            matches!(
                end,
                End::Broken {
                    by: Side::Downstream,
                    ..
                }
            ),
            "{end:?}"
        );
        let (read, end) = drain(&mut far).await;
        assert_eq!(end, Some(ErrorKind::ConnectionReset));
        assert!(
            (bytes.sent()..written).contains(&(read as u64)),
            "{read} of {written}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_was_sent_before_a_reset_is_delivered_to_a_peer_that_reads_on() {
    locally(async {
        let Joined {
            app,
            mut far,
            relay,
            bytes,
        } = joined().await;
        fill(&app).await;
        abort(app);
        let (read, end) = drain(&mut far).await;
        assert_eq!(end, Some(ErrorKind::ConnectionReset));
        let end = relay.await.unwrap();
        assert!(
            matches!(
                end,
                End::Broken {
                    by: Side::Downstream,
                    ..
                }
            ),
            "{end:?}"
        );
        assert_eq!(read as u64, bytes.sent());
    })
    .await;
}

#[tokio::test]
async fn a_peer_feels_an_application_that_does_not_read() {
    locally(async {
        let Joined {
            mut app,
            mut far,
            relay,
            ..
        } = joined().await;
        let taken = push_until_full(&mut far).await;
        assert!(
            taken > 0 && taken < 32 << 20,
            "no back-pressure after {taken} bytes"
        );
        far.finish().unwrap();
        app.shutdown().await.unwrap();
        let mut got = Vec::new();
        app.read_to_end(&mut got).await.unwrap();
        assert!(got.len() >= taken, "{} of {taken}", got.len());
        let end = relay.await.unwrap();
        assert!(matches!(end, End::Eof), "{end:?}");
    })
    .await;
}
