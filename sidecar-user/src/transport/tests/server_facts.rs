//! What our server answers a client that goes to the limits of HTTP/2 and beyond, where that is no flood.

use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::*;

const STREAM_WINDOW: usize = 512 * 1024;

/// A server, and a client of it that is the test's own.
async fn served() -> (Authority, Gateway, Frames<client::TlsStream<TcpStream>>) {
    let ca = Authority::new("root");
    let gateway = gateway(&ca.svid(&id("server"))).await;
    let peer = by_hand(&gateway, &ca).await;
    (ca, gateway, peer)
}

async fn ask(peer: &mut Frames<client::TlsStream<TcpStream>>, stream: u32) {
    peer.send(&Frame::connect(stream, "10.0.0.2:80")).await.unwrap();
}

/// A stream that is answered by a 200.
async fn open(peer: &mut Frames<client::TlsStream<TcpStream>>, gateway: &mut Gateway, stream: u32) -> Stream {
    ask(peer, stream).await;
    let accepted = gateway.incoming.recv().await.unwrap().accept().unwrap();
    assert_eq!(peer.until(frames::HEADERS).await.unwrap().stream, stream);
    accepted
}

fn data(stream: u32, payload: &[u8]) -> Frame {
    Frame::new(frames::DATA, 0, stream, payload)
}

#[tokio::test]
async fn one_stream_more_than_the_limit_is_refused_and_none_of_the_others() {
    locally(async {
        let (_ca, mut gateway, mut peer) = served().await;
        let mut held = Vec::new();
        for n in 0..MAX_STREAMS {
            ask(&mut peer, 2 * n + 1).await;
            held.push(gateway.incoming.recv().await.unwrap());
        }
        let beyond = 2 * MAX_STREAMS + 1;
        ask(&mut peer, beyond).await;
        let refused = peer.until(frames::RST_STREAM).await.unwrap();
        assert_eq!(
            (refused.stream, refused.code()),
            (beyond, Some(frames::REFUSED_STREAM))
        );
        assert!(gateway.incoming.try_recv().is_err(), "nobody hears of it");
        let _accepted = held.pop().unwrap().accept().unwrap();
        let answered = peer.until(frames::HEADERS).await.unwrap();
        assert_eq!(answered.stream, 2 * MAX_STREAMS - 1);
    })
    .await;
}

#[tokio::test]
async fn a_header_list_over_the_limit_is_refused_and_costs_no_tunnel() {
    locally(async {
        let (_ca, mut gateway, mut peer) = served().await;
        let mut block = frames::connect_block("10.0.0.2:80");
        for _ in 0..20 {
            block.extend(frames::field("x", &"y".repeat(1024)));
        }
        peer.send(&Frame::new(frames::HEADERS, frames::END_HEADERS, 1, &block))
            .await
            .unwrap();
        let answer = peer
            .until_some(|frame| (frame.stream == 1).then_some(frame))
            .await
            .unwrap();
        assert!(
            answer.kind == frames::RST_STREAM || answer.flags & frames::END_STREAM != 0,
            "{answer:?}"
        );
        assert!(gateway.incoming.try_recv().is_err(), "nobody hears of it");
        open(&mut peer, &mut gateway, 3).await;
    })
    .await;
}

#[tokio::test]
async fn bytes_that_come_before_the_answer_are_kept() {
    locally(async {
        let (_ca, mut gateway, mut peer) = served().await;
        ask(&mut peer, 1).await;
        peer.send(&data(1, b"early")).await.unwrap();
        let incoming = gateway.incoming.recv().await.unwrap();
        // The frame is here before the answer is made.
        peer.send(&Frame::ping()).await.unwrap();
        peer.until(frames::PING).await.unwrap();
        let mut stream = incoming.accept().unwrap();
        assert_eq!(receive(&mut stream).await.unwrap().unwrap(), "early");
    })
    .await;
}

#[tokio::test]
async fn bytes_beyond_the_window_end_their_stream() {
    locally(async {
        let (_ca, mut gateway, mut peer) = served().await;
        let mut other = open(&mut peer, &mut gateway, 1).await;
        let mut stream = open(&mut peer, &mut gateway, 3).await;
        for _ in 0..STREAM_WINDOW / 16_384 {
            peer.send(&data(3, &[0; 16_384])).await.unwrap();
        }
        peer.send(&data(3, &[1])).await.unwrap();
        let code = peer
            .until_some(|frame| (frame.stream == 3).then(|| frame.code()))
            .await
            .unwrap();
        assert_eq!(code, Some(frames::FLOW_CONTROL_ERROR));
        let mut got = 0;
        let error = loop {
            match receive(&mut stream).await {
                Ok(Some(chunk)) => got += chunk.len(),
                Ok(None) => panic!("broken off is not ended"),
                Err(error) => break error,
            }
        };
        assert!(got <= STREAM_WINDOW, "{got} bytes, {error}");
        peer.send(&data(1, b"unharmed")).await.unwrap();
        assert_eq!(receive(&mut other).await.unwrap().unwrap(), "unharmed");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_shakes_hands_and_says_no_more_is_given_up() {
    locally(async {
        let ca = Authority::new("root");
        let gateway = gateway(&ca.svid(&id("server"))).await;
        let leaf = ca.leaf(id("stranger").as_str(), |_| {});
        let config = stranger::client(Some(&leaf), stranger::provider());
        let mut silent = shake_hands(gateway.addr, config).await.unwrap();
        // The server has greeted, so that it is the greeting that it waits for.
        silent.read_exact(&mut [0; 9]).await.unwrap();
        tokio::time::pause();
        let begun = Instant::now();
        let failure = loop {
            if let Some(failure) = gateway.failures.borrow_mut().pop_front() {
                break failure;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert!(
            matches!(
                failure,
                Error::TimedOut {
                    what: Step::Http2Preface,
                    ..
                }
            ),
            "{failure:?}"
        );
        assert!(begun.elapsed() >= Timeouts::default().settings);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_stops_reading_holds_up_itself_and_takes_bounded_memory() {
    locally(async {
        let (ca, mut gateway, mut peer) = served().await;
        // As much credit as there can be: what bounds is the server's own.
        let credit = (0x7fff_ffff_u32 - 0xffff).to_be_bytes();
        peer.send(&Frame::new(frames::WINDOW_UPDATE, 0, 0, &credit))
            .await
            .unwrap();
        let mut stream = open(&mut peer, &mut gateway, 1).await;
        peer.send(&Frame::new(frames::WINDOW_UPDATE, 0, 1, &credit))
            .await
            .unwrap();
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(gateway.addr, &id("server")));
        let (mut other, mut far) = streams(&pool, &key, &svid, &mut gateway).await;
        let taken = push_until_full(&mut stream).await;
        // Of which the kernel has the greater part.
        assert!(taken > 0 && taken <= 32 << 20, "{taken}");
        send(&mut other.stream, "through").await;
        assert_eq!(receive(&mut far).await.unwrap().unwrap(), "through");
    })
    .await;
}

#[tokio::test]
async fn a_drained_tunnel_says_so_serves_its_streams_to_the_end_and_closes() {
    locally(async {
        let (_ca, mut gateway, mut peer) = served().await;
        let mut stream = open(&mut peer, &mut gateway, 1).await;
        gateway.drain.notify_waiters();
        assert_eq!(peer.until(frames::GOAWAY).await.unwrap().code(), Some(0));
        // The last word on which streams are served may follow, and an answer to the PING before it.
        peer.send(&data(1, b"still served")).await.unwrap();
        assert_eq!(receive(&mut stream).await.unwrap().unwrap(), "still served");
        send(&mut stream, "and answered").await;
        let answer = loop {
            let frame = peer.next().await.unwrap().unwrap();
            match frame.kind {
                frames::DATA => break frame.payload,
                frames::PING if frame.flags & frames::ACK == 0 => {
                    peer.send(&Frame {
                        flags: frames::ACK,
                        ..frame
                    })
                    .await
                    .unwrap();
                }
                _ => {}
            }
        };
        assert_eq!(answer, b"and answered");
        peer.send(&Frame::new(frames::DATA, frames::END_STREAM, 1, &[]))
            .await
            .unwrap();
        assert_eq!(receive(&mut stream).await.unwrap(), None);
        stream.finish().unwrap();
        drop(stream);
        while let Some(frame) = peer.next().await.unwrap() {
            if frame.kind == frames::PING && frame.flags & frames::ACK == 0 {
                peer.send(&Frame {
                    flags: frames::ACK,
                    ..frame
                })
                .await
                .unwrap();
            }
        }
    })
    .await;
}
