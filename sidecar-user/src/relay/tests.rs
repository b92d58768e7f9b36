//! Relaying facts on real sockets: app ⇄ (near) relay (far) ⇄ server.

use std::io::ErrorKind;
use std::os::fd::AsFd;

use socket2::{SockFilter, SockRef};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};

use bytes::Bytes;

use super::*;
use crate::model::leg;

/// For what has to happen at once, or after `LAST_WORDS`.
const SOON: Duration = Duration::from_secs(10);

const LIMITS: Limits = Limits {
    half_closed: Duration::from_secs(60),
};

/// As the proxy has it that dials.
fn dialled(stream: TcpStream) -> AsyncFd<std::net::TcpStream> {
    let news = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
    #[expect(
        deprecated,
        reason = "the sound way is an unsafe one, for the sake of types that are not from std"
    )]
    AsyncFd::with_interest(stream.into_std().unwrap(), news).unwrap()
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // What is accepted inherits both, as in the proxy.
    prepare(&listener).unwrap();
    SockRef::from(&listener).set_out_of_band_inline(true).unwrap();
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
    let (app, down) = pair().await;
    let (up, server) = pair().await;
    let relay = start(down, up, limits);
    Joined { app, server, relay }
}

fn start(mut down: TcpStream, mut up: TcpStream, limits: Limits) -> tokio::task::JoinHandle<(End, u64, u64)> {
    tokio::spawn(async move {
        let bytes = flow::Bytes::default();
        let end = relay(&mut down, &mut up, &bytes, &Budget::new(64 << 20), limits).await;
        (end, bytes.sent(), bytes.received())
    })
}

/// A relay of which one side has ended, and the other knows: who has ended, the other, and the relay.
async fn half_ended(by_app: bool) -> (TcpStream, TcpStream, tokio::task::JoinHandle<(End, u64, u64)>) {
    let Joined { app, server, relay } = joined(LIMITS).await;
    let (mut ended, mut other) = if by_app { (app, server) } else { (server, app) };
    ended.shutdown().await.unwrap();
    assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
    (ended, other, relay)
}

/// Writes until it is no longer writable for good: every buffer on the way is full.
async fn fill(socket: &TcpStream) -> u64 {
    let block = vec![1; 64 * 1024];
    let mut written = 0_u64;
    while tokio::time::timeout(Duration::from_millis(300), socket.writable())
        .await
        .is_ok()
    {
        written += socket.try_write(&block).unwrap_or(0) as u64;
        assert!(written < 64 << 20, "no back-pressure after {written} bytes");
    }
    written
}

/// Reads to the end, and gives how much there was and what the end was.
async fn drain(socket: &mut TcpStream) -> (u64, Option<ErrorKind>) {
    let mut read = 0;
    let mut buf = vec![0; 1 << 20];
    loop {
        match socket.read(&mut buf).await {
            Ok(0) => return (read, None),
            Ok(n) => read += n as u64,
            Err(error) => return (read, Some(error.kind())),
        }
    }
}

fn abort(socket: TcpStream) {
    socket.set_zero_linger().unwrap();
}

/// Waits until the kernel has told a socket of a reset.
async fn told(socket: &TcpStream) {
    tokio::time::timeout(SOON, socket.ready(Interest::ERROR))
        .await
        .expect("a reset that nobody tells of")
        .unwrap();
}

fn is_by(end: &End, side: Side) -> bool {
    matches!(end, End::Broken { by, .. } if *by == side)
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
    let written = fill(&app).await;
    drop(app);
    assert_eq!(
        drain(&mut server).await,
        (written, None),
        "nothing is lost on the way"
    );
    drop(server);
    assert_eq!(relay.await.unwrap().1, written);
}

#[tokio::test]
async fn a_reset_that_a_write_meets_first_is_a_reset_to_the_reader_too() {
    for by_app in [true, false] {
        let Joined { app, server, relay } = joined(LIMITS).await;
        let (breaker, mut other) = if by_app { (app, server) } else { (server, app) };
        // Both before the relay gets its turn.
        other.try_write(b"for nobody").unwrap();
        abort(breaker);
        assert_eq!(drain(&mut other).await, (0, Some(ErrorKind::ConnectionReset)));
        let side = if by_app { Side::Downstream } else { Side::Upstream };
        let (end, ..) = relay.await.unwrap();
        assert!(is_by(&end, side), "{end:?}");
    }
}

#[tokio::test]
async fn a_reset_after_the_end_stops_the_other_side() {
    for by_app in [true, false] {
        let (breaker, mut other, relay) = half_ended(by_app).await;
        abort(breaker);
        told(&other).await;
        let error = other.write(b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "as without a relay");
        let side = if by_app { Side::Downstream } else { Side::Upstream };
        let (end, ..) = relay.await.unwrap();
        assert!(is_by(&end, side), "{end:?}");
    }
}

#[tokio::test]
async fn the_first_write_to_one_who_has_closed_is_answered_by_a_reset() {
    for by_app in [true, false] {
        let Joined { app, server, relay } = joined(LIMITS).await;
        let (leaver, mut other) = if by_app { (app, server) } else { (server, app) };
        drop(leaver);
        assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
        other.write_all(b"x").await.unwrap();
        told(&other).await;
        let error = other.write(b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "as without a relay");
        relay.await.unwrap();
    }
}

#[tokio::test]
async fn a_reset_after_the_end_takes_away_nothing_that_waits_for_the_reader() {
    const LEN: usize = 1 << 20;
    let Joined {
        mut app,
        mut server,
        relay,
    } = joined(LIMITS).await;
    app.write_all(&vec![1; LEN]).await.unwrap();
    app.shutdown().await.unwrap();
    // All of it has left the application's kernel, and most of it waits in the relay's.
    while sys::unsent(app.as_fd()).unwrap() > 0 {
        tokio::task::yield_now().await;
    }
    abort(app);
    let (end, ..) = relay.await.unwrap();
    assert!(is_by(&end, Side::Downstream), "{end:?}");
    assert_eq!(drain(&mut server).await, (LEN as u64, None));
}

#[tokio::test]
async fn a_reset_is_noticed_behind_a_receiver_that_does_not_read() {
    for by_app in [true, false] {
        let Joined { app, server, relay } = joined(LIMITS).await;
        let (breaker, mut other) = if by_app { (app, server) } else { (server, app) };
        fill(&breaker).await;
        abort(breaker);
        told(&other).await;
        let (_, end) = drain(&mut other).await;
        assert_eq!(end, Some(ErrorKind::ConnectionReset));
        relay.await.unwrap();
    }
}

#[tokio::test]
async fn what_arrived_before_a_reset_is_delivered_to_a_receiver_that_reads_on() {
    let Joined {
        app,
        mut server,
        relay,
    } = joined(LIMITS).await;
    fill(&app).await;
    abort(app);
    let (read, end) = drain(&mut server).await;
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
    let (_, sent, _) = relay.await.unwrap();
    assert_eq!(read, sent);
}

#[tokio::test]
async fn a_connection_ends_that_neither_side_takes_anything_of() {
    let Joined { app, server, relay } = joined(LIMITS).await;
    fill(&server).await;
    app.try_write(b"for nobody").unwrap();
    abort(server);
    abort(app);
    let (end, ..) = tokio::time::timeout(SOON, relay).await.unwrap().unwrap();
    assert!(matches!(end, End::Broken { .. }), "{end:?}");
}

#[tokio::test]
async fn a_peer_that_vanished_is_a_reset_and_no_end() {
    let (mut app, down) = pair().await;
    let (up, server) = pair().await;
    // The kernel drops all that arrives, as on a cut link.
    let nothing = SockFilter::new(0x06, 0, 0, 0);
    SockRef::from(&server).attach_filter(&[nothing]).unwrap();
    SockRef::from(&up)
        .set_tcp_user_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let relay = start(down, up, LIMITS);
    app.write_all(b"anyone there?").await.unwrap();
    assert_eq!(drain(&mut app).await, (0, Some(ErrorKind::ConnectionReset)));
    let (end, ..) = relay.await.unwrap();
    let End::Broken { by, error } = &end else {
        panic!("{end:?}")
    };
    assert_eq!((*by, error.kind()), (Side::Upstream, ErrorKind::TimedOut));
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

#[tokio::test]
async fn urgent_bytes_arrive_with_what_follows_them() {
    let (mut app, down) = pair().await;
    let (up, mut server) = pair().await;
    let relay = start(down, up, LIMITS);
    app.write_all(b"x").await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();
    // All there before the relay gets its turn, and then nothing more.
    app.try_write(b"before").unwrap();
    SockRef::from(&app).send_out_of_band(b"!").unwrap();
    app.try_write(b"after").unwrap();
    let mut got = [0; 12];
    tokio::time::timeout(SOON, server.read_exact(&mut got))
        .await
        .expect("what follows the urgent byte")
        .unwrap();
    assert_eq!(&got, b"before!after");
    app.shutdown().await.unwrap();
    drop(server);
    relay.await.unwrap();
}

#[tokio::test]
async fn urgent_bytes_arrive_from_a_dialled_peer_too() {
    let (mut app, mut down) = pair().await;
    let (up, server) = pair().await;
    SockRef::from(&up).set_out_of_band_inline(true).unwrap();
    let mut up = dialled(up);
    let (bytes, budget) = (flow::Bytes::default(), Budget::new(64 << 20));
    let talk = async {
        // One at a time, and with others around it; nothing follows the last one.
        for round in ["", "before"] {
            for _ in 0..2 {
                server.try_write(round.as_bytes()).unwrap();
                SockRef::from(&server).send_out_of_band(b"!").unwrap();
                server.try_write(round.as_bytes()).unwrap();
                let mut got = vec![0; 2 * round.len() + 1];
                tokio::time::timeout(SOON, app.read_exact(&mut got))
                    .await
                    .expect("what follows the urgent byte")
                    .unwrap();
                assert_eq!(got, format!("{round}!{round}").as_bytes());
            }
        }
        drop((app, server));
    };
    tokio::join!(relay(&mut down, &mut up, &bytes, &budget, LIMITS), talk);
}

#[tokio::test]
async fn a_dialled_socket_gets_its_options_when_more_is_written_than_once() {
    for first in [1, 100_000] {
        let (up, _server) = pair().await;
        let mut up = dialled(up);
        let watched = up.get_ref().try_clone().unwrap();
        let options = || {
            let up = SockRef::from(&watched);
            (
                up.tcp_nodelay().unwrap(),
                up.tcp_notsent_lowat().unwrap() == leg::NOTSENT_LOWAT,
            )
        };
        let budget = Budget::new(1 << 20);
        let mut port = up.open(&budget);
        let mut send = async |len| {
            let mut chunk = Bytes::from(vec![0; len]);
            poll_fn(|cx| port.poll_send(cx, &mut chunk)).await.unwrap();
        };
        send(first).await;
        assert_eq!(options(), (first > 1, first > 1), "{first}");
        send(1).await;
        assert_eq!(options(), (true, true), "{first}");
    }
}

#[tokio::test]
async fn the_filter_of_the_listener_comes_off_when_more_is_read_than_once() {
    let (mut app, mut down) = pair().await;
    for (chunks, is_left) in [(1, true), (2, false)] {
        let all = SockFilter::new(0x06, 0, 0, u32::MAX);
        SockRef::from(&down).attach_filter(&[all]).unwrap();
        let other = SockRef::from(&down).try_clone().unwrap();
        let budget = Budget::new(1 << 20);
        let mut port = down.open(&budget);
        for _ in 0..chunks {
            app.write_all(b"x").await.unwrap();
            poll_fn(|cx| port.poll_recv(cx)).await.unwrap().unwrap();
        }
        assert_eq!(other.detach_filter().is_ok(), is_left, "{chunks}");
    }
}

#[tokio::test]
async fn a_reset_that_comes_together_with_the_last_end_is_no_end() {
    for by_app in [true, false] {
        let (breaker, other, relay) = half_ended(by_app).await;
        // Both before the relay gets its turn.
        abort(breaker);
        drop(other);
        let side = if by_app { Side::Downstream } else { Side::Upstream };
        let (end, ..) = relay.await.unwrap();
        assert!(is_by(&end, side), "{end:?}");
    }
}
