//! Relaying facts on real sockets: app ⇄ (near) relay (far) ⇄ server.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const LIMITS: Limits = Limits {
    half_closed: Duration::from_secs(60),
};

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    (client.unwrap(), accepted.unwrap().0)
}

struct Joined {
    app: TcpStream,
    server: TcpStream,
    relay: tokio::task::JoinHandle<(End, u64, u64)>,
}

async fn joined(limits: Limits) -> Joined {
    let (app, mut down) = pair().await;
    let (mut up, server) = pair().await;
    let relay = tokio::spawn(async move {
        let bytes = flow::Bytes::default();
        let end = relay(&mut down, &mut up, &bytes, limits).await;
        (end, bytes.sent(), bytes.received())
    });
    Joined { app, server, relay }
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_end_is_passed_on_alone() {
    let Joined {
        mut app,
        mut server,
        relay,
    } = joined(LIMITS).await;
    app.write_all(b"question").await.unwrap();
    app.shutdown().await.unwrap();
    let mut got = String::new();
    server.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "question");
    server.write_all(b"late answer").await.unwrap();
    drop(server);
    got.clear();
    app.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "late answer");
    let (end, sent, received) = relay.await.unwrap();
    assert!(matches!(end, End::Eof), "{end:?}");
    assert_eq!((sent, received), (8, 11));
}

#[tokio::test]
async fn a_reset_arrives_as_a_reset_after_the_bytes_before_it() {
    for by_app in [true, false] {
        let Joined { app, server, relay } = joined(LIMITS).await;
        let (mut breaker, mut other) = if by_app { (app, server) } else { (server, app) };
        breaker.write_all(b"last words").await.unwrap();
        let mut got = [0; 10];
        other.read_exact(&mut got).await.unwrap();
        breaker.set_zero_linger().unwrap();
        drop(breaker);
        let error = other.read(&mut got).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let (end, ..) = relay.await.unwrap();
        let side = if by_app { Side::Downstream } else { Side::Upstream };
        assert!(matches!(&end, End::Broken { by, .. } if *by == side), "{end:?}");
    }
}

#[tokio::test]
async fn an_early_answer_survives_the_reset_of_a_server_that_does_not_read_on() {
    let Joined {
        mut app,
        mut server,
        relay,
    } = joined(LIMITS).await;
    app.write_all(&vec![7; 4096]).await.unwrap();
    assert!(
        server.peek(&mut [0; 1]).await.unwrap() > 0,
        "the question has arrived"
    );
    server.write_all(b"413 too large").await.unwrap();
    // Closed with unread data: the kernel answers with a reset.
    drop(server);
    let mut got = Vec::new();
    let error = app.read_to_end(&mut got).await.unwrap_err();
    assert_eq!(
        (got.as_slice(), error.kind()),
        (&b"413 too large"[..], ErrorKind::ConnectionReset)
    );
    assert!(matches!(
        relay.await.unwrap().0,
        End::Broken {
            by: Side::Upstream,
            ..
        }
    ));
}

#[tokio::test]
async fn a_writer_feels_a_reader_that_does_not_read() {
    let Joined {
        app,
        mut server,
        relay,
    } = joined(LIMITS).await;
    let block = vec![1; 64 * 1024];
    let mut written = 0_u64;
    // Stops being writable for good once every buffer on the way is full.
    while tokio::time::timeout(Duration::from_millis(300), app.writable())
        .await
        .is_ok()
    {
        written += app.try_write(&block).unwrap_or(0) as u64;
        assert!(written < 64 << 20, "no back-pressure after {written} bytes");
    }
    drop(app);
    let mut read = 0;
    let mut buf = vec![0; 1 << 20];
    loop {
        match server.read(&mut buf).await.unwrap() {
            0 => break,
            n => read += n as u64,
        }
    }
    assert_eq!(read, written, "nothing is lost on the way");
    drop(server);
    assert_eq!(relay.await.unwrap().1, written);
}

#[tokio::test(start_paused = true)]
async fn a_silent_half_closed_connection_ends_and_traffic_keeps_it_open() {
    let Joined {
        mut app,
        mut server,
        relay,
    } = joined(Limits {
        half_closed: Duration::from_secs(10),
    })
    .await;
    app.shutdown().await.unwrap();
    let mut got = [0; 1];
    assert_eq!(server.read(&mut got).await.unwrap(), 0);
    let start = Instant::now();
    for _ in 0..4 {
        server.write_all(b"x").await.unwrap();
        app.read_exact(&mut got).await.unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    let error = app.read(&mut got).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::ConnectionReset,
        "cut off is not finished"
    );
    let (end, ..) = relay.await.unwrap();
    assert!(matches!(end, End::Idle), "{end:?}");
    assert!(
        start.elapsed() >= Duration::from_secs(28),
        "{:?}",
        start.elapsed()
    );
}
