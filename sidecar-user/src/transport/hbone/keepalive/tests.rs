//! A tunnel over memory whose clock moves only when nothing else does: ours is HTTP/2 itself, the peer's frames are the
//! test's own.

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::io::DuplexStream;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::Instant;

use super::super::frames::PREFACE;
use super::super::socket::Socket;
use super::super::traffic::Traffic;
use super::*;
use crate::budget::Budget;
use crate::testing::frames::{ACK, Frame, Frames, PING};

struct Watched {
    peer: Frames<DuplexStream>,
    watch: JoinHandle<()>,
    /// The tunnel ends with its last handle.
    _requests: SendRequest<Bytes>,
}

impl Watched {
    async fn begin() -> Self {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let traffic = Traffic::new(&Budget::new(1 << 20), (0, PREFACE), std::time::Instant::now());
        let (io, heard) = Socket::new(ours, traffic);
        let (tunnel, peer) = tokio::join!(h2::client::handshake(io), Frames::server(theirs, &[]));
        let (requests, mut connection) = tunnel.unwrap();
        let ping = connection.ping_pong().unwrap();
        spawn_local(connection);
        Self {
            peer: peer.unwrap(),
            watch: spawn_local(watch(ping, heard)),
            _requests: requests,
        }
    }

    /// The next question whether the peer lives.
    async fn asked(&mut self) -> Frame {
        let is_question = |frame: Frame| (frame.kind == PING && frame.flags & ACK == 0).then_some(frame);
        self.peer.until_some(is_question).await.unwrap()
    }

    async fn answer(&mut self, question: Frame) {
        self.peer
            .send(&Frame {
                flags: ACK,
                ..question
            })
            .await
            .unwrap();
    }
}

async fn locally(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_asked_now_and_then_and_lives_by_its_answers() {
    locally(async {
        let mut tunnel = Watched::begin().await;
        let begun = Instant::now();
        for _ in 0..50 {
            let question = tunnel.asked().await;
            tunnel.answer(question).await;
        }
        let each = begun.elapsed() / 50;
        assert!(
            each >= TICK * SILENT_TICKS && each <= TICK * (SILENT_TICKS + 1),
            "{each:?}"
        );
        assert!(!tunnel.watch.is_finished());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_nothing_is_dead_half_a_minute_later() {
    locally(async {
        let mut tunnel = Watched::begin().await;
        // Its greeting was the last that came.
        let silent_since = Instant::now();
        tunnel.asked().await;
        (&mut tunnel.watch).await.unwrap();
        let silent = silent_since.elapsed();
        let least = TICK * SILENT_TICKS + PATIENCE;
        assert!(silent >= least && silent <= least + TICK, "{silent:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_counts() {
    locally(async {
        let mut tunnel = Watched::begin().await;
        for _ in 0..3 {
            let question = tunnel.asked().await;
            tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
            tunnel.answer(question).await;
        }
        tunnel.asked().await;
        assert!(!tunnel.watch.is_finished());
    })
    .await;
}

/// As where the answer is stuck behind bulk: RFC 9113 lets it be late, and bytes are a sign of life.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_later_than_patience_counts_when_something_else_was_heard() {
    locally(async {
        let mut tunnel = Watched::begin().await;
        let question = tunnel.asked().await;
        for _ in 0..3 {
            tokio::time::sleep(PATIENCE / 2 + Duration::from_secs(1)).await;
            tunnel.peer.send(&Frame::settings()).await.unwrap();
        }
        assert!(!tunnel.watch.is_finished());
        tunnel.answer(question).await;
        let question = tunnel.asked().await;
        tunnel.answer(question).await;
        // And when then nothing comes at all, it is dead.
        tunnel.asked().await;
        (&mut tunnel.watch).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_heard_is_not_asked() {
    locally(async {
        let mut tunnel = Watched::begin().await;
        let talking = async {
            for _ in 0..100 {
                tunnel.peer.send(&Frame::ping()).await.unwrap();
                // Our answer, and nothing else.
                let answer = tunnel.peer.until(PING).await.unwrap();
                assert_eq!(answer.flags & ACK, ACK, "{answer:?}");
                tokio::time::sleep(TICK * 2 / 3).await;
            }
        };
        talking.await;
        assert!(!tunnel.watch.is_finished());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_watch_ends_with_the_tunnel() {
    locally(async {
        let Watched {
            peer,
            watch,
            _requests,
        } = Watched::begin().await;
        drop(peer);
        let gone = tokio::time::timeout(TICK * (SILENT_TICKS + 1) + PATIENCE, watch).await;
        gone.expect("it outlives its tunnel").unwrap();
    })
    .await;
}
