//! A bug in a walk costs the connection that met it. With real sockets, and without the kernel's help.

use std::cell::Cell;
use std::future::Ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::super::contain::Abortive;
use super::super::doors::Doors;
use super::super::phase::Phase;
use super::super::proving::Nonces;
use super::super::walk::relay::join;
use super::*;
use crate::budget::Budget;
use crate::discovery::Demand;
use crate::model::{Direction, Flow, Own, SpiffeId};
use crate::observe::Observer;
use crate::policy::Mode;
use crate::relay::{self, Polled, Port};
use crate::route::Unknown;

/// What makes the walk panic.
const FATAL: u8 = b'!';

/// An upstream that answers what it is told, until it meets its bug.
#[derive(Default)]
struct Buggy {
    answer: Bytes,
}

impl Port for Buggy {
    fn open(&mut self, _: &Budget) -> impl Polled {
        self
    }

    fn reset(&mut self) {}

    fn reset_finished(&mut self) {}
}

impl Polled for &mut Buggy {
    fn poll_recv(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.answer.is_empty() {
            // `poll_send` comes first: the relay asks again after it.
            return Poll::Pending;
        }
        Poll::Ready(Ok(Some(std::mem::take(&mut self.answer))))
    }

    fn park(&mut self, _: &mut Context<'_>, _: &mut Bytes) {}

    fn consumed(&mut self, _: usize) {}

    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        assert!(!chunk.contains(&FATAL), "a bug in the middle of a connection");
        self.answer = std::mem::take(chunk);
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

async fn walk(shard: Rc<Shard>, arrival: Arrival) {
    let mut down = Abortive::new(arrival.stream);
    let _open = shard.enter();
    let flow = Flow::new(Direction::Inbound, arrival.client.0, SystemTime::now());
    let flow = shard.observe.open(flow);
    let live = shard.live.enter(None);
    let outcome = join(&shard, &live, &mut *down, &mut Buggy::default(), &flow).await;
    flow.close(outcome);
}

/// Of a shard that has nothing but itself.
pub(in super::super) fn settings(observer: &Observer) -> Settings {
    let id: SpiffeId = "spiffe://cluster.local/ns/demo/sa/server".parse().unwrap();
    Settings {
        generation: None,
        replaced: watch::channel(false).1,
        id: id.clone(),
        own: Arc::new(Own {
            name: "server".to_owned(),
            identity: id,
            addresses: Vec::new(),
            node: String::new(),
        }),
        mode: Mode::Permissive,
        unknown: Unknown::PassThrough,
        addresses: Vec::new(),
        own_ports: Vec::new(),
        status_port: 15020,
        hbone_port: 15008,
        shards: 1,
        files: 1024,
        bypass: None,
        world: watch::channel(Arc::default()).1,
        demand: Demand::default(),
        svid: watch::channel(None).1,
        phase: watch::channel(Phase::Serving).1,
        relay: relay::Limits {
            half_closed: Duration::from_secs(60),
        },
        budget: Budget::new(64 << 20),
        doors: Doors::new(1024),
        meters: observer.meters().clone(),
        limited: Arc::default(),
        nonces: Nonces::default(),
        affinities: Arc::default(),
    }
}

fn shard(observer: &Observer) -> Rc<Shard> {
    Rc::new(Shard::new(settings(observer), observer.shard(0)).unwrap())
}

/// Runs the test beside a shard that accepts with that walk.
fn beside<F: Future<Output = ()> + 'static>(
    walk: impl Fn(Rc<Shard>, Arrival) -> F + 'static,
    test: impl AsyncFnOnce(Rc<Shard>, SocketAddr),
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let shard = shard(&Observer::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::select! {
            () = accept(&shard, listener, walk) => panic!("the listener is given up"),
            () = test(shard.clone(), at) => {}
        }
    });
}

async fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
}

#[test]
fn a_bug_in_a_walk_resets_its_connection_and_no_other() {
    beside(walk, async |shard, at| {
        let mut healthy = TcpStream::connect(at).await.unwrap();
        echoes(&mut healthy).await;
        let mut unlucky = TcpStream::connect(at).await.unwrap();
        echoes(&mut unlucky).await;
        assert_eq!(shard.open.count.get(), 2);

        unlucky.write_all(&[FATAL]).await.unwrap();
        let ended = unlucky.read(&mut [0; 8]).await.map_err(|e| e.kind());
        assert_eq!(
            ended,
            Err(io::ErrorKind::ConnectionReset),
            "an end in order would look complete"
        );
        assert_eq!(shard.open.count.get(), 1, "it does not hold up a drain");

        echoes(&mut healthy).await;
        echoes(&mut TcpStream::connect(at).await.unwrap()).await;
    });
}

/// What is not in a task of its own yet.
#[test]
fn a_bug_before_the_walk_does_not_end_the_shard() {
    let calls = Cell::new(0);
    let clumsy = move |_: Rc<Shard>, _: Arrival| -> Ready<()> {
        calls.set(calls.get() + 1);
        match calls.get() {
            1 => panic!("a bug at the door"),
            _ => std::future::ready(()),
        }
    };
    beside(clumsy, async |_, at| {
        for _ in 0..2 {
            let mut stream = TcpStream::connect(at).await.unwrap();
            let ended = stream.read(&mut [0; 8]).await;
            assert!(matches!(ended, Ok(0) | Err(_)));
        }
    });
}

#[tokio::test(start_paused = true)]
async fn what_follows_changes_begins_anew_after_a_bug() {
    let begun = Rc::new(Cell::new(0));
    let count = begun.clone();
    let follow = move || {
        count.set(count.get() + 1);
        let first = count.get() == 1;
        async move { assert!(!first, "a bug in the first round") }
    };
    LocalSet::new()
        .run_until(async {
            restarted(follow);
            // Longer than the rest; the third round would be one too many.
            tokio::time::sleep(Duration::from_secs(60)).await;
        })
        .await;
    assert_eq!(begun.get(), 2);
}
